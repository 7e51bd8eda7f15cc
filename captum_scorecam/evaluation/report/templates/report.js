"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  document.documentElement.classList.add("js");

  // Theme: system, light or dark. Browsers may deny storage to a local file.
  const themes = ["auto", "light", "dark"];
  const store = {
    get() { try { return localStorage.getItem("captum-scorecam-theme"); } catch { return null; } },
    set(theme) { try { localStorage.setItem("captum-scorecam-theme", theme); } catch { /* not saved */ } },
  };
  function setTheme(theme) {
    const root = document.documentElement;
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    byId("theme").textContent = `Theme: ${theme}`;
    byId("theme").setAttribute("aria-label", `Colour theme: ${theme === "auto" ? "as the system" : theme}`);
  }
  let theme = themes.includes(store.get()) ? store.get() : "auto";
  setTheme(theme);
  byId("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    setTheme(theme);
    store.set(theme);
  });

  // Missing numbers come last in either direction; the sort is stable.
  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (a - b);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const original = [...body.rows];
    const value = (row, column) => {
      const text = row.cells[column].dataset.value;
      return text === "" ? null : Number(text);
    };
    heads.forEach((head, column) => {
      const heading = head.querySelector(".sort-heading");
      if (!heading) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" };
        const order = next[head.getAttribute("aria-sort") || "none"];
        for (const other of heads) other.removeAttribute("aria-sort");
        if (order !== "none") head.setAttribute("aria-sort", order);
        const sign = order === "descending" ? -1 : 1;
        const rows = [...original];
        if (order !== "none") rows.sort((a, b) => compare(value(a, column), value(b, column), sign));
        body.append(...rows);
      });
    });
  }

  // Tables for spreadsheets: the values and what stands beside them, unrounded.
  function rowsOf(table) {
    const cellsOf = (row) => [...row.cells].slice(1);
    const titles = cellsOf(table.tHead.rows[0]).map((cell) => cell.querySelector(".sort-heading").textContent.trim());
    const body = [...table.tBodies[0].rows].map((row) => [
      row.cells[0].textContent.trim(),
      ...cellsOf(row).flatMap((cell) => Object.values(cell.dataset)),
    ]);
    const names = Object.keys(table.tBodies[0].rows[0].cells[1].dataset).slice(1);
    const head = ["Method", ...titles.flatMap((title) => [title, ...names.map((name) => `${title}: ${name}`)])];
    return [head, ...body];
  }
  const quoted = (text) => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  async function copied(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { // a local file may have no clipboard
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }
  for (const actions of document.querySelectorAll(".actions")) {
    const table = actions.nextElementSibling.querySelector("table");
    const copy = actions.querySelector(".copy");
    copy.addEventListener("click", async () => {
      const done = await copied(rowsOf(table).map((row) => row.join("\t")).join("\n"));
      copy.textContent = done ? "Copied" : "Not copied";
      setTimeout(() => { copy.textContent = "Copy table"; }, 2000);
    });
    const download = actions.querySelector(".download");
    download.addEventListener("click", () => {
      const link = document.createElement("a");
      const text = rowsOf(table).map((row) => row.map(quoted).join(",")).join("\n");
      link.href = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/csv" }));
      link.download = download.dataset.file;
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }

  if (!byId("gallery-data")) return;
  const data = JSON.parse(byId("gallery-data").textContent);
  const list = byId("items");
  const items = [...list.children];
  const entry = (item) => data.images[Number(item.dataset.item)];
  let shown = items;

  function range(values) {
    const present = values.filter((value) => value !== null && value !== undefined);
    return present.length < 2 ? null : Math.max(...present) - Math.min(...present);
  }
  function sortValue(item, key, method) {
    if (key === "order") return Number(item.dataset.item);
    if (key === "disagreement") return entry(item).disagreement;
    if (method === "") return range(data.methods.map((name) => entry(item).values[name]?.[key]));
    return entry(item).values[method]?.[key] ?? null;
  }
  function update() {
    const key = byId("sort-key").value;
    const method = byId("sort-method").value;
    const ofMetric = data.metrics.includes(key);
    const sign = byId("sort-direction").dataset.direction === "descending" ? -1 : 1;
    const group = byId("filter-class").value;
    const correct = byId("filter-correct").value;
    byId("sort-method").disabled = !ofMetric;
    const fits = (item) => (group === "" || entry(item).group === group)
      && (correct === "" || String(entry(item).correct) === correct);
    const sorted = [...items].sort((a, b) => compare(sortValue(a, key, method), sortValue(b, key, method), sign));
    shown = sorted.filter(fits);
    for (const item of items) item.hidden = !fits(item);
    list.append(...sorted);
    for (const row of list.querySelectorAll(".sorted")) row.classList.remove("sorted");
    if (ofMetric) {
      for (const row of list.querySelectorAll(`[data-metric="${CSS.escape(key)}"]`)) {
        const owner = row.closest(".tile").dataset.method;
        row.classList.toggle("sorted", method === "" || method === owner);
      }
    }
    byId("status").textContent = shown.length === items.length
      ? `${items.length} images` : `${shown.length} of ${items.length} images`;
    byId("empty").hidden = shown.length > 0;
    makeReachable(shots(shown[0])[0]);
  }
  for (const id of ["sort-key", "sort-method", "filter-class", "filter-correct"]) {
    byId(id).addEventListener("change", update);
  }
  byId("sort-key").addEventListener("change", () => {
    // Images on which methods disagree most are looked at first.
    setDirection(byId("sort-key").value === "disagreement" ? "descending" : "ascending");
    update();
  });
  function setDirection(direction) {
    byId("sort-direction").dataset.direction = direction;
    byId("sort-direction").textContent = direction === "ascending" ? "Lowest first" : "Highest first";
  }
  byId("sort-direction").addEventListener("click", () => {
    setDirection(byId("sort-direction").dataset.direction === "ascending" ? "descending" : "ascending");
    update();
  });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("opacity").addEventListener("input", () => {
    document.documentElement.style.setProperty("--opacity", byId("opacity").value / 100);
    byId("opacity").setAttribute("aria-valuetext", `${byId("opacity").value} %`);
  });

  // The gallery is a single tab stop; arrow keys move within it.
  function shots(item) { return item ? [...item.querySelectorAll("button.shot")] : []; }
  function makeReachable(button) {
    for (const other of list.querySelectorAll("button.shot")) other.tabIndex = -1;
    if (button) button.tabIndex = 0;
  }
  function nearest(item, tile) {
    const buttons = shots(item);
    return buttons.find((button) => Number(button.dataset.tile) >= tile) ?? buttons.at(-1);
  }
  function moved(button, key) {
    const item = button.closest(".item");
    const buttons = shots(item);
    const place = buttons.indexOf(button);
    const tile = Number(button.dataset.tile);
    if (key === "ArrowLeft") return buttons[place - 1];
    if (key === "ArrowRight") return buttons[place + 1];
    if (key === "ArrowUp") return nearest(shown[shown.indexOf(item) - 1], tile);
    if (key === "ArrowDown") return nearest(shown[shown.indexOf(item) + 1], tile);
    if (key === "Home") return nearest(shown[0], tile);
    if (key === "End") return nearest(shown.at(-1), tile);
    return null;
  }
  const movingKeys = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"];
  list.addEventListener("keydown", (event) => {
    if (!event.target.matches("button.shot") || !movingKeys.includes(event.key)) return;
    event.preventDefault();
    moved(event.target, event.key)?.focus();
  });
  list.addEventListener("focusin", (event) => {
    if (event.target.matches("button.shot")) makeReachable(event.target);
  });

  // The enlarged image.
  const viewer = byId("viewer");
  let current = null;
  function show(button) {
    current = button;
    const item = button.closest(".item");
    const tile = button.closest(".tile");
    const map = button.querySelector("img");
    for (const name of ["--picture", "--ratio"]) viewer.style.setProperty(name, item.style.getPropertyValue(name));
    byId("viewer-name").textContent = item.querySelector("h3").textContent;
    byId("viewer-facts").textContent = [...item.querySelectorAll("header p > span")]
      .map((fact) => fact.textContent.trim()).join(" · ");
    viewer.querySelector(".stage").toggleAttribute("data-seen", !map);
    viewer.querySelector(".explained").hidden = !map;
    if (map) viewer.querySelector(".map").src = map.src;
    byId("viewer-method").textContent = map ? tile.querySelector("figcaption").textContent : "";
    const values = map ? [...tile.querySelectorAll("dl > div")] : [];
    byId("viewer-values").replaceChildren(...values.map((row) => row.cloneNode(true)));
  }
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button.shot");
    if (!button) return;
    show(button);
    viewer.showModal();
    byId("viewer-close").focus();
  });
  function step(key) {
    const next = moved(current, key);
    if (next) show(next);
  }
  viewer.addEventListener("keydown", (event) => {
    if (!movingKeys.includes(event.key)) return;
    event.preventDefault();
    step(event.key);
  });
  for (const button of viewer.querySelectorAll("[data-key]")) {
    button.addEventListener("click", () => step(button.dataset.key));
  }
  // Not on the event "close": it fires late, when keys may have moved the focus already.
  function close() {
    viewer.close();
    current.focus();
  }
  byId("viewer-close").addEventListener("click", close);
  viewer.addEventListener("click", (event) => { if (event.target === viewer) close(); });
  viewer.addEventListener("cancel", (event) => {
    event.preventDefault();
    close();
  });
  update();
})();
