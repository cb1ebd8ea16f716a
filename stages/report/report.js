"use strict";
(() => {
  const tip = document.getElementById("tip");
  let followed = null;

  /* Follow one backbone through every panel and table; a second choice lets it go. */
  function follow(index) {
    followed = followed === index ? null : index;
    document.body.classList.toggle("following", followed !== null);
    for (const item of document.querySelectorAll("[data-b]")) {
      const chosen = item.dataset.b === followed;
      item.classList.toggle("followed", chosen);
      if (item.hasAttribute("aria-pressed")) item.setAttribute("aria-pressed", String(chosen));
    }
  }

  function show(mark) {
    tip.textContent = mark.dataset.words;
    tip.hidden = false;
    const at = mark.getBoundingClientRect();
    const left = Math.min(at.right + 8, window.innerWidth - tip.offsetWidth - 8);
    const above = at.top - tip.offsetHeight - 6;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above > 4 ? above : at.bottom + 6}px`;
  }

  const hide = () => { tip.hidden = true; };
  const markOf = (event) => event.target instanceof Element ? event.target.closest(".mark") : null;

  for (const name of ["mouseover", "focusin"]) {
    document.addEventListener(name, (event) => { const mark = markOf(event); if (mark) show(mark); });
  }
  for (const name of ["mouseout", "focusout"]) {
    document.addEventListener(name, (event) => { if (markOf(event)) hide(); });
  }
  document.addEventListener("click", (event) => {
    const mark = event.target instanceof Element ? event.target.closest(".mark, .chip") : null;
    if (mark) follow(mark.dataset.b);
  });
  document.addEventListener("keydown", (event) => {
    const mark = markOf(event);
    if (mark && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); follow(mark.dataset.b); }
    if (event.key === "Escape") { hide(); if (followed !== null) follow(followed); }
  });

  /* Numbers by size, words by alphabet, empty cells last whichever way. */
  function compare(a, b, sign) {
    if (a === "" || b === "") return (a === "") - (b === "");
    const x = Number(a), y = Number(b);
    const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
    return sign * order;
  }

  for (const button of document.querySelectorAll(".sortable thead button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th"), row = head.parentElement;
      const numeric = head.classList.contains("num");
      const first = numeric ? "descending" : "ascending";
      const other = numeric ? "ascending" : "descending";
      const way = head.getAttribute("aria-sort") === first ? other : first;
      for (const cell of row.children) if (cell.hasAttribute("aria-sort")) cell.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", way);
      const body = head.closest("table").tBodies[0], place = head.cellIndex, sign = way === "ascending" ? 1 : -1;
      const rows = [...body.rows];
      rows.sort((a, b) => compare(a.cells[place].dataset.v, b.cells[place].dataset.v, sign));
      body.append(...rows);
    });
  }

  const find = document.getElementById("find"), regime = document.getElementById("regime");
  const all = document.getElementById("all").tBodies[0], shown = document.getElementById("shown");
  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of all.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = (regime.value !== "" && row.dataset.r !== regime.value) || !words.every((w) => text.includes(w));
      if (!row.hidden) count += 1;
    }
    shown.textContent = `${count} of ${all.rows.length} rows`;
  }
  find.addEventListener("input", filter);
  regime.addEventListener("change", filter);
  find.form.addEventListener("submit", (event) => event.preventDefault());
  filter();
})();
