"use strict";
// Sorts and filters the table of cases. Without a script the page shows all rows in order.
(() => {
  const table = document.getElementById("cases");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const headers = Array.from(table.tHead.rows[0].cells);
  const caseFilter = document.getElementById("case-filter");
  const labelFilter = document.getElementById("label-filter");
  const collator = new Intl.Collator(undefined, { numeric: true });

  // Of an accent written as one letter or as two, as file systems do, either finds the other.
  const plain = (text) => text.normalize("NFC").toLowerCase();
  const number = (cell) => parseFloat(cell.textContent.replace("\u2212", "-"));

  function sortBy(column, descending) {
    const sign = descending ? -1 : 1;
    if (headers[column].dataset.kind === "text") {
      const text = (row) => row.cells[column].textContent;
      rows.sort((a, b) => sign * collator.compare(text(a), text(b)));
    } else {
      const values = new Map(rows.map((row) => [row, number(row.cells[column])]));
      rows.sort((a, b) => {
        const x = values.get(a);
        const y = values.get(b);
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return sign * (x - y);
      });
    }
    body.append(...rows);
    headers.forEach((header, place) => {
      if (place === column) header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
    });
  }

  function filter() {
    const wanted = plain(caseFilter.value.trim());
    const label = labelFilter.value;
    let shown = 0;
    for (const row of rows) {
      const fits =
        plain(row.cells[0].textContent).includes(wanted) &&
        (label === "" || row.cells[1].textContent === label);
      row.hidden = !fits;
      shown += fits;
    }
    document.getElementById("shown").textContent = `${shown} of ${rows.length} rows`;
  }

  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    button.addEventListener("click", () => {
      sortBy(column, header.getAttribute("aria-sort") === "ascending");
    });
    header.append(button);
  });
  document.getElementById("controls").hidden = false;
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("all-metrics").addEventListener("change", (event) => {
    table.classList.toggle("all", event.target.checked);
  });
  caseFilter.addEventListener("input", filter);
  labelFilter.addEventListener("change", filter);
  filter();
})();
