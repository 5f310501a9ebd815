"use strict";
// Lets every .board of the page sort, filter, show all columns and give its CSV. Plain JavaScript, no network.
(() => {
  const setUp = (board) => {
    const form = board.querySelector(".board-controls");
    const table = board.querySelector("table");
    const body = table.tBodies[0];
    const head = table.tHead.rows[0];
    const count = board.querySelector(".board-count");
    const rows = Array.from(body.rows);
    const selects = Array.from(form.querySelectorAll("select"));
    const full = JSON.parse(board.querySelector(".board-data").textContent);
    const fullRow = (index) => full.rows[index].map((at) => full.texts[at]);
    const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const place = new Map(rows.map((row, index) => [row, index]));
    const prefix = `#${board.id}:`;
    let sort = { key: "", down: false };
    let built = false;

    const box = board.querySelector(".board-scroll");
    const more = board.querySelector(".board-more");
    const measure = () => {
      more.hidden = box.scrollWidth <= box.clientWidth + 1;
    };

    const headers = () => Array.from(head.cells);
    const headerOf = (key) => headers().find((cell) => cell.dataset.key === key);

    const compare = (column, numeric, down) => (one, other) => {
      const first = one.cells[column].dataset.value;
      const second = other.cells[column].dataset.value;
      // What is missing comes last either way.
      if ((first === "") !== (second === "")) return first === "" ? 1 : -1;
      const found = numeric ? Number(first) - Number(second) : first.localeCompare(second, "en", { numeric: true });
      return (down ? -found : found) || place.get(one) - place.get(other);
    };

    const order = () => {
      const cell = sort.key ? headerOf(sort.key) : undefined;
      const sorted = rows.slice();
      if (cell) sorted.sort(compare(cell.cellIndex, cell.dataset.numeric === "1", sort.down));
      body.append(...sorted);
      for (const each of headers()) {
        each.setAttribute("aria-sort", each !== cell ? "none" : sort.down ? "descending" : "ascending");
      }
    };

    const filter = () => {
      const asked = selects.filter((select) => select.value).map((select) => [select.name.replaceAll("_", "-"), select.value.slice(1)]);
      const searched = form.elements.q.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const fits = asked.every(([name, value]) => row.getAttribute(`data-${name}`) === value)
          && searched.every((word) => words.get(row).includes(word));
        row.hidden = !fits;
        shown += fits ? 1 : 0;
      }
      count.textContent = `${shown} of ${rows.length} rows`;
    };

    const build = () => {
      built = true;
      const taken = new Set(headers().map((cell) => cell.dataset.key));
      full.columns.forEach(([name, meaning, numeric], index) => {
        const kind = numeric ? "number" : "text";
        const cell = document.createElement("th");
        cell.scope = "col";
        cell.className = `wide ${kind}`;
        // A short column may have the name of a full one, which is written in other units.
        cell.dataset.key = taken.has(name) ? `full-${name}` : name;
        cell.dataset.numeric = numeric ? "1" : "0";
        cell.setAttribute("aria-sort", "none");
        const button = document.createElement("button");
        button.type = "button";
        button.title = meaning;
        button.textContent = name;
        cell.append(button);
        head.append(cell);
        rows.forEach((row, at) => {
          const value = full.texts[full.rows[at][index]];
          const field = document.createElement("td");
          field.className = `wide ${kind}`;
          field.dataset.value = value;
          field.textContent = value;
          if (value.length > 40) field.title = value;
          row.append(field);
        });
      });
    };

    const widen = () => {
      const wide = form.elements.wide.checked;
      if (wide && !built) build();
      board.classList.toggle("is-wide", wide);
    };

    const write = () => {
      const state = new URLSearchParams();
      for (const select of selects) if (select.value) state.set(select.name, select.value.slice(1));
      if (form.elements.q.value) state.set("q", form.elements.q.value);
      if (form.elements.wide.checked) state.set("wide", "1");
      if (sort.key) state.set("sort", sort.key + (sort.down ? ":down" : ":up"));
      const text = state.toString();
      if (!text && !location.hash.startsWith(prefix)) return;
      history.replaceState(null, "", text ? prefix + text : location.pathname + location.search);
    };

    const read = () => {
      if (!location.hash.startsWith(prefix)) return;
      const state = new URLSearchParams(location.hash.slice(prefix.length));
      for (const select of selects) {
        const wanted = state.has(select.name) ? `=${state.get(select.name)}` : "";
        select.value = Array.from(select.options).some((option) => option.value === wanted) ? wanted : "";
      }
      form.elements.q.value = state.get("q") || "";
      form.elements.wide.checked = state.get("wide") === "1";
      widen();
      const [key, way] = (state.get("sort") || "").split(":");
      sort = headerOf(key) ? { key, down: way === "down" } : { key: "", down: false };
    };

    const show = () => {
      widen();
      filter();
      order();
      write();
      measure();
    };

    const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

    const download = () => {
      const shown = Array.from(body.rows).filter((row) => !row.hidden);
      const lines = [full.columns.map((column) => column[0]), ...shown.map((row) => fullRow(place.get(row)))];
      const text = lines.map((line) => line.map(quoted).join(",") + "\n").join("");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
      link.download = `${board.id}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    };

    head.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const key = button.parentElement.dataset.key;
      sort = { key, down: sort.key === key && !sort.down };
      show();
      button.focus();
    });
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => {
      sort = { key: "", down: false };
      setTimeout(show, 0); // the fields are reset after this event
    });
    board.querySelector(".board-download").addEventListener("click", download);
    addEventListener("hashchange", () => {
      read();
      show();
    });

    addEventListener("resize", measure);

    for (const cell of headers()) cell.querySelector("button").disabled = false;
    form.reset(); // a browser may keep what was chosen before a reload; the address decides
    form.hidden = false;
    read();
    show();
  };

  const start = () => document.querySelectorAll(".board").forEach(setUp);
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
})();
