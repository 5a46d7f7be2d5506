"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const references = JSON.parse(byId("references").textContent);
  const tools = byId("tools"), filter = byId("filter"), choice = byId("reference"), shown = byId("shown");
  const make = (tag, attributes, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };

  // Sorting: a button in every heading; missing values stay last.
  const value = (row, column) => {
    const cell = row.cells[column];
    if (column === 0) return cell.textContent.trim().toLowerCase();
    const text = cell.querySelector(".value").textContent.replace(/[,†]/g, "").replace("−", "-");
    if (text === "–") return null;
    const number = parseFloat(text);
    return Number.isNaN(number) ? text : number; // the letters of groups
  };
  const sort = (table) => {
    const heading = table.tHead.rows[0].querySelector("[aria-sort]");
    const rows = [...table.tBodies[0].rows];
    const original = (row) => Number(row.dataset.place);
    if (heading) {
      const column = heading.cellIndex, sign = heading.getAttribute("aria-sort") === "descending" ? -1 : 1;
      rows.sort((one, other) => {
        const [a, b] = [value(one, column), value(other, column)];
        if (a === b) return original(one) - original(other);
        if (a === null) return 1;
        if (b === null) return -1;
        return (a < b ? -1 : 1) * sign;
      });
    } else rows.sort((one, other) => original(one) - original(other));
    table.tBodies[0].append(...rows);
  };
  const number = (table) => [...table.tBodies[0].rows].forEach((row, place) => { row.dataset.place = place; });
  const risingFirst = (heading) => heading.cellIndex === 0 || /↓|^(rank|group)$/.test(heading.textContent);
  const makeSortable = (table) => {
    number(table);
    for (const heading of table.tHead.rows[0].cells) {
      const first = risingFirst(heading) ? "ascending" : "descending";
      const second = first === "ascending" ? "descending" : "ascending";
      const button = make("button", { type: "button" }, ...heading.childNodes);
      button.addEventListener("click", () => {
        const now = heading.getAttribute("aria-sort");
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        if (now !== second) heading.setAttribute("aria-sort", now === first ? second : first);
        sort(table);
      });
      heading.append(button);
    }
  };
  document.querySelectorAll("table.sortable").forEach(makeSortable);

  // Filtering: rows of the tables and images whose label contains every word.
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = (label) => words.every((word) => label.toLowerCase().includes(word));
    const names = new Set();
    let visible = 0;
    for (const element of document.querySelectorAll("[data-label]")) {
      const label = element.dataset.label, fits = matches(label) || label === choice.value;
      element.hidden = !fits;
      if (!names.has(label)) { names.add(label); visible += fits ? 1 : 0; }
    }
    shown.textContent = words.length ? `${visible} of ${names.size} rows` : `${names.size} rows`;
  };
  filter.addEventListener("input", apply);

  // The reference: tables and notes that were computed against every row, and the images beside those of the reference.
  const labels = new Set(references.map((each) => each.label));
  const cells = ([text, detail, verdict]) => {
    const cell = make("td", { className: verdict }, make("span", { className: "value", textContent: text }));
    if (detail) cell.append(" ", make("span", { className: "detail", textContent: detail }));
    return cell;
  };
  const lines = (grid) => grid.rows.map(([label, row]) => {
    const line = make("tr", {}, make("th", { scope: "row", textContent: label }), ...row.map(cells));
    line.classList.toggle("reference", label === choice.value);
    if (labels.has(label)) line.dataset.label = label;
    return line;
  });
  const section = (grid, place) => {
    const id = `conclusion-${place + 1}`;
    const headings = ["row", ...grid.columns].map((text) => make("th", { scope: "col", textContent: text }));
    const table = make("table", { className: "numbers sortable", id: `conclusion-numbers-${place + 1}` },
      make("thead", {}, make("tr", {}, ...headings)), make("tbody", {}, ...lines(grid)));
    makeSortable(table);
    const scroll = make("div", { className: "scroll", tabIndex: 0, role: "region" }, table);
    scroll.setAttribute("aria-labelledby", id);
    const notes = grid.notes.map((text) => make("p", { className: "quiet", textContent: text }));
    return make("section", {}, make("h2", { id, textContent: grid.title }), scroll, ...notes);
  };
  const compare = () => {
    const reference = references[choice.selectedIndex];
    if (reference) {
      byId("conclusions").replaceChildren(...reference.conclusions.map(section));
      reference.tables.forEach((content, place) => {
        const table = byId(`numbers-${place + 1}`);
        byId(`table-${place + 1}`).textContent = content.title;
        content.columns.forEach((text, column) => {
          table.tHead.rows[0].cells[column + 1].querySelector("button").textContent = text;
        });
        table.tBodies[0].replaceChildren(...lines(content));
        number(table);
        sort(table);
      });
      byId("notes").replaceChildren(...reference.notes.map((text) => make("li", { textContent: text })));
      if (byId("plot")) {
        byId("plot").hidden = choice.selectedIndex > 0;
        byId("no-plot").hidden = choice.selectedIndex === 0;
      }
    }
    for (const item of document.querySelectorAll(".strip li")) {
      item.classList.toggle("reference-picture", item.dataset.label === choice.value);
    }
    apply();
  };
  choice.addEventListener("change", compare);

  // Images: larger, beside the reference's for the same prompt; arrow keys go through all that are visible.
  const dialog = byId("large"), parts = dialog.querySelectorAll("figure");
  let at = null;
  const buttons = () => [...document.querySelectorAll("button.zoom")].filter((button) => button.checkVisibility());
  const fill = (figure, button) => {
    figure.querySelector("img").src = button.querySelector("img").src;
    figure.querySelector("img").alt = button.querySelector("img").alt;
    figure.querySelector("figcaption").textContent = button.dataset.caption;
  };
  const show = (button) => {
    at = button;
    const group = [...button.closest("[data-group]").querySelectorAll("button.zoom")];
    const label = button.closest(".duels") ? choice.options[0].value : choice.value;
    const other = group.find((each) => each.dataset.of === label);
    dialog.querySelector("h2").textContent = button.dataset.prompt;
    parts[0].hidden = !other || other === button;
    dialog.querySelector(".large").classList.toggle("alone", parts[0].hidden);
    dialog.querySelector(".large").classList.toggle("pixels", button.querySelector("img").naturalWidth < 200);
    if (other) fill(parts[0], other);
    fill(parts[1], button);
    const all = buttons();
    byId("which").textContent = `${all.indexOf(button) + 1} of ${all.length}`;
    if (!dialog.open) dialog.showModal();
  };
  const move = (step) => {
    const all = buttons();
    show(all[(all.indexOf(at) + step + all.length) % all.length]);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.zoom");
    if (button) show(button);
  });
  byId("previous").addEventListener("click", () => move(-1));
  byId("next").addEventListener("click", () => move(1));
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      move(event.key === "ArrowLeft" ? -1 : 1);
    }
  });
  dialog.addEventListener("close", () => at && at.focus());

  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
  tools.hidden = false;
  compare();
})();
