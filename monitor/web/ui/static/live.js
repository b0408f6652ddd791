// Looks at the page again every few seconds and takes over what is marked data-live. Without it the page reads the same;
// it is only not renewed by itself. A part in which somebody has selected text or set the focus is left as it is.
"use strict";
(() => {
  const seconds = Number(document.body.dataset.refresh);
  const state = document.getElementById("live-state");
  const parts = () => [...document.querySelectorAll("[data-live][id]")];
  if (!seconds || parts().length < 2) return;

  const inUse = (part) => {
    const chosen = document.getSelection();
    return part.contains(document.activeElement) || (chosen && !chosen.isCollapsed && part.contains(chosen.anchorNode));
  };

  const look = async () => {
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of parts()) {
        const next = fresh.getElementById(part.id);
        if (next && next.innerHTML !== part.innerHTML && !inUse(part)) part.replaceWith(document.importNode(next, true));
      }
      document.title = fresh.title;
      state.textContent = `Live: looks again every ${seconds} s.`;
    } catch {
      state.textContent = "awry does not answer: what you see is old.";
      state.className = "severity critical";
      return;
    }
    state.className = "";
  };

  let due = 0;
  setInterval(() => {
    if (!document.hidden && Date.now() >= due) {
      due = Date.now() + seconds * 1000;
      look();
    }
  }, 500);
  due = Date.now() + seconds * 1000;
  state.textContent = `Live: looks again every ${seconds} s.`;
})();
