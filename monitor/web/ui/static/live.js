// Fetches the page again every few seconds and replaces the elements marked data-live. Without it the page is complete,
// but does not refresh. An element that holds the focus or a text selection is left as it is.
"use strict";
(() => {
  const seconds = Number(document.body.dataset.refresh);
  const state = document.getElementById("live-state");
  const parts = () => [...document.querySelectorAll("[data-live][id]")];
  if (!seconds || parts().length < 2) return;

  const inUse = (part) => {
    const selection = document.getSelection();
    return (
      part.contains(document.activeElement) ||
      (selection && !selection.isCollapsed && part.contains(selection.anchorNode))
    );
  };

  const refresh = async () => {
    try {
      const response = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
      if (!response.ok) throw new Error(String(response.status));
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      for (const part of parts()) {
        const next = fresh.getElementById(part.id);
        if (next && next.innerHTML !== part.innerHTML && !inUse(part)) part.replaceWith(document.importNode(next, true));
      }
      document.title = fresh.title;
      state.textContent = `Live: refreshes every ${seconds} s.`;
    } catch {
      state.textContent = "awry does not respond: the data shown is out of date.";
      state.className = "severity critical";
      return;
    }
    state.className = "";
  };

  let due = 0;
  setInterval(() => {
    if (!document.hidden && Date.now() >= due) {
      due = Date.now() + seconds * 1000;
      refresh();
    }
  }, 500);
  due = Date.now() + seconds * 1000;
  state.textContent = `Live: refreshes every ${seconds} s.`;
})();
