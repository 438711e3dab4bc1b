// Markup of the tools below the book, put right for those who hear a page.
document.addEventListener("DOMContentLoaded", () => {
  /** @param {string} where @param {string} name @param {string} value */
  const set = (where, name, value) =>
    document.querySelectorAll(where).forEach((element) => element.setAttribute(name, value));
  set(".citation-list > .citation", "role", "listitem");
  set("dt.sig > dl", "role", "list"); // a signature over several lines defines nothing
  set("dt.sig > dl > dd", "role", "listitem");
  set(".bd-sidebar-primary summary", "aria-label", "Pages below");
  const named = () => {
    for (const button of document.querySelectorAll("button.toggle-button")) {
      const title = button.closest(".admonition")?.querySelector(".admonition-title")?.firstChild;
      button.setAttribute("aria-label", title?.textContent?.trim() || "More");
    }
  };
  addEventListener("load", named); // the theme makes the buttons later
  // who comes from a claim wants the code that computed its answer
  const unfold = () => set(".claims:has(:target) + .cell > details.hide", "open", "");
  addEventListener("hashchange", unfold);
  addEventListener("load", unfold); // only then it is known what the address leads to
});
