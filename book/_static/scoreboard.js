// The scoreboard: filters that hide rows and squares and stand in the page's address, arrow keys
// along the squares. Without this script the page shows every claim.
document.addEventListener("DOMContentLoaded", () => {
  const form = /** @type {HTMLFormElement | null} */ (document.querySelector("form.filters"));
  if (!form) return;
  // On a phone the claims of a document are folded: a square, a filter or a search opens them.
  if (matchMedia("(max-width: 720px)").matches) {
    const own = "#scoreboard > section > .pst-scrollable-table-container";
    for (const table of document.querySelectorAll(own)) {
      const fold = document.createElement("details");
      const head = document.createElement("summary");
      fold.className = "claims-fold";
      head.textContent = `${table.querySelectorAll("tbody tr").length} claims with their runs`;
      table.replaceWith(fold);
      fold.append(head, table);
    }
    addEventListener("beforeprint", () =>
      document.querySelectorAll("details.claims-fold").forEach((fold) =>
        fold.setAttribute("open", "")));
  }
  const status = /** @type {HTMLElement} */ (form.querySelector("[role=status]"));
  const choices = [...form.querySelectorAll("select")];
  const groups = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".squares"));
  const claims = [...groups].flatMap(squares).map((square) => {
    const anchor = decodeURIComponent(square.hash.slice(1));
    const mark = /** @type {HTMLElement} */ (document.getElementById(anchor));
    const row = /** @type {HTMLElement} */ (mark.closest("tr"));
    return { told: mark.dataset, row, square };
  });
  const boxes = /** @type {NodeListOf<HTMLElement>} */ (
    document.querySelectorAll("#scoreboard > section, details:has(.scoreboard), .squares")
  );

  /**
   * The squares of a group that are shown.
   * @param {HTMLElement} group
   */
  function squares(group) {
    return /** @type {HTMLAnchorElement[]} */ ([...group.querySelectorAll("a.square:not([hidden])")]);
  }

  /** Show what the form asks for, and say how much that is. */
  function filter() {
    const asked = choices.filter((choice) => choice.value);
    for (const { told, row, square } of claims) {
      row.hidden = square.hidden = !asked.every((choice) => told[choice.name] === choice.value);
    }
    for (const box of boxes) {
      box.hidden = !box.querySelector("tbody tr:not([hidden]), a.square:not([hidden])");
      // who asks for a verdict sees its rows; else what no run can answer stays folded
      const some = box.matches(".claims-fold")
        ? asked.length
        : asked.some((choice) => choice.name === "verdict");
      const open = !box.hidden && Boolean(some);
      if (box instanceof HTMLDetailsElement) box.open = open;
    }
    for (const group of groups) stop(group, squares(group)[0]);
    const shown = claims.filter(({ row }) => !row.hidden).length;
    status.textContent = `${shown} of ${claims.length} claims shown.`;
  }

  /** Keep the choice in the address; what else stands there, such as a claim, stays. */
  function keep() {
    const address = new URL(location.href);
    for (const { name, value } of choices) {
      if (value) address.searchParams.set(name, value);
      else address.searchParams.delete(name);
    }
    history.replaceState(null, "", address);
  }

  function clear() {
    for (const choice of choices) choice.value = "";
    filter();
    keep();
  }

  /** Show the row that the address leads to, in its fold, whatever the filters say. */
  function reveal() {
    const row = claims.find(({ square }) => square.hash === location.hash)?.row;
    if (!row) return;
    if (row.hidden) clear();
    const around = row.closest("details");
    for (const fold of [...row.querySelectorAll("details"), ...(around ? [around] : [])]) {
      fold.open = true;
    }
    row.scrollIntoView();
  }

  /**
   * Tab stops once in a group of squares.
   * @param {HTMLElement} group
   * @param {EventTarget | null} at where it stops
   */
  function stop(group, at) {
    for (const square of squares(group)) square.tabIndex = square === at ? 0 : -1;
  }

  for (const group of groups) {
    group.addEventListener("focusin", ({ target }) => {
      if (squares(group).some((square) => square === target)) stop(group, target);
    });
    group.addEventListener("keydown", (event) => {
      const shown = squares(group);
      const at = shown.findIndex((square) => square === event.target);
      /** @type {Record<string, number>} */
      const places = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: shown.length - 1 };
      const next = shown[places[event.key]];
      if (!next) return;
      event.preventDefault();
      next.focus();
    });
  }
  form.addEventListener("input", () => {
    filter();
    keep();
  });
  form.querySelector("button")?.addEventListener("click", clear);
  addEventListener("hashchange", reveal);

  const address = new URLSearchParams(location.search);
  for (const choice of choices) {
    const value = address.get(choice.name) ?? "";
    choice.value = [...choice.options].some((option) => option.value === value) ? value : "";
  }
  form.hidden = false;
  filter();
  reveal();
});
