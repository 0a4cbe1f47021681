// A header's button sorts its table: numbers largest first, words from a to z, the other way round when pressed again.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.value;
  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const values = [...body.rows].map((row) => key(row, column)).filter((value) => value !== undefined);
      const numeric = values.every((value) => value !== "" && Number.isFinite(Number(value)));
      const before = header.ariaSort;
      const down = before ? before === "ascending" : numeric;
      const compare = (a, b) => (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true })) * (down ? -1 : 1);
      const order = (a, b) => {
        const [one, other] = [key(a, column), key(b, column)];
        if (one === undefined || other === undefined) return (one === undefined) - (other === undefined);
        return compare(one, other);
      };
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.ariaSort = down ? "descending" : "ascending";
      body.append(...[...body.rows].sort(order));
    });
  });
}
