"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  // The colours of the figures' theme that a dark screen needs exchanged; those of the methods suit both.
  const EXCHANGED = { "#22302a": "#e6ece8", "#5b6660": "#a3b0a9", "#e4e7e2": "#303b36" };

  function inColours(text) {
    return dark.matches ? text.replace(/#22302a|#5b6660|#e4e7e2/g, (colour) => EXCHANGED[colour]) : text;
  }

  // Legends do not wrap by themselves: as many columns as the longest label leaves room for.
  function fitLegends(node, width) {
    if (node === null || typeof node !== "object") return;
    if (node.legend && node.legend.columns && node.scale && node.scale.domain) {
      const symbol = 24, letter = 5.6;
      const longest = Math.max(...node.scale.domain.map((label) => String(label).length));
      const room = Math.floor((width - 20) / (symbol + letter * longest));
      node.legend.columns = Math.max(1, Math.min(node.legend.columns, room));
    }
    for (const value of Object.values(node)) fitLegends(value, width);
  }

  // Vega-Lite fits single and layered views to a width by itself, but not panels: those get what is left per panel.
  function fitted(specification, width) {
    const axis = 76, gap = 24;
    fitLegends(specification, width);
    specification.config.background = "transparent";
    if (specification.facet) {
      const panels = width < 420 ? 1 : Math.min(specification.columns, width < 560 ? 2 : 3);
      specification.columns = panels;
      specification.spec.width = Math.floor((width - axis - gap * (panels - 1)) / panels);
    } else if (specification.vconcat) {
      for (const view of specification.vconcat) view.width = width - axis;
    } else {
      specification.width = width;
      specification.autosize = { type: "fit-x", contains: "padding" };
    }
    return specification;
  }

  async function draw(holder) {
    const width = holder.clientWidth;
    if (width === 0) return;
    holder.drawnWidth = width;
    const specification = fitted(JSON.parse(inColours(holder.source)), width);
    const target = document.createElement("div");
    const options = { actions: false, renderer: "svg", ast: true, tooltip: { theme: dark.matches ? "dark" : "light" } };
    const previous = holder.view;
    holder.replaceChildren(target);
    holder.view = (await vegaEmbed(target, specification, options)).view;
    if (previous) previous.finalize();
    holder.dataset.drawn = String(width);
  }

  function drawAll(charts) {
    charts.reduce((before, holder) => before.then(() => draw(holder)), Promise.resolve());
  }

  const charts = [...document.querySelectorAll(".chart")];
  for (const holder of charts) holder.source = holder.querySelector("script").textContent;
  drawAll(charts);
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => drawAll(charts.filter((holder) => holder.clientWidth !== holder.drawnWidth)), 120);
  });
  dark.addEventListener("change", () => drawAll(charts));

  // Numbers by value, words by the alphabet, missing values last in either direction.
  function compare(left, right, direction) {
    if (left === "" || right === "") return (left === "") - (right === "");
    const [a, b] = [Number(left), Number(right)];
    const order = Number.isNaN(a) || Number.isNaN(b) ? left.localeCompare(right, "en") : a - b;
    return direction * order;
  }

  function sortBy(heading) {
    const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heading.parentElement.children) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    const body = heading.closest("table").tBodies[0];
    const column = heading.cellIndex;
    const key = (row) => row.cells[column].dataset.sort;
    body.append(...[...body.rows].sort((left, right) => compare(key(left), key(right), direction)));
  }

  for (const heading of document.querySelectorAll("th[aria-sort]")) {
    heading.querySelector("button").addEventListener("click", () => sortBy(heading));
  }
})();
