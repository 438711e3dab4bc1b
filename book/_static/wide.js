// What is wider than its box scrolls there. The keyboard must reach such a box, and its edge fades
// where more lies behind: the style sheet looks for .more-left and .more-right. A formula that is wider
// by a part of a pixel does not scroll: .fits.
/** Say to those who hear a page what they come to. @param {HTMLElement} box */
function name(box) {
  const figure = box.closest("figure")?.querySelector(".caption-number")?.textContent?.trim();
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", figure ?? "Scrolls sideways");
}

/** @param {HTMLElement} box */
function mark(box) {
  box.classList.remove("fits");
  const more = box.scrollWidth - box.clientWidth;
  const scrolls = more > 1 && /auto|scroll/.test(getComputedStyle(box).overflowX);
  if (scrolls) {
    box.tabIndex = 0;
    if (/DIV|PRE/.test(box.tagName)) name(box);
  }
  box.classList.toggle("fits", !scrolls);
  box.classList.toggle("more-left", scrolls && box.scrollLeft > 1);
  box.classList.toggle("more-right", scrolls && box.scrollLeft < more - 1);
}

document.addEventListener("DOMContentLoaded", async () => {
  // On a phone each row of a scoreboard is a card, whose cells repeat the heads of their columns.
  const boards = /** @type {NodeListOf<HTMLTableElement>} */ (
    document.querySelectorAll("table.scoreboard"));
  for (const { tHead, tBodies } of boards)
    for (const cell of [...tBodies].flatMap((body) => [...body.querySelectorAll("td")])) {
      cell.dataset.head = tHead?.rows[0].cells[cell.cellIndex].innerText ?? "";
      cell.classList.toggle("none", cell.innerText.trim() === "–");
    }
  // Figures that keep their size scroll in a box without their caption.
  const kept = "article :is(figure, .cell_output) :is(img[src$='.svg'], img[width])";
  for (const curves of document.querySelectorAll(kept)) {
    const box = document.createElement("div");
    box.className = "curves";
    curves.replaceWith(box);
    box.append(curves);
  }
  await /** @type {any} */ (window).MathJax?.startup.promise; // the equations have their widths
  const boxes = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(
    "article :is(.math, mjx-container, pre, .pst-scrollable-table-container, .output, .curves)"
  ));
  const sizes = new ResizeObserver((changes) =>
    changes.forEach(({ target }) => mark(/** @type {HTMLElement} */ (target))));
  for (const box of boxes) {
    sizes.observe(box);
    box.addEventListener("scroll", () => mark(box), { passive: true });
  }
});
