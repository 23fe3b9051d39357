"use strict";
// The page can be read without this; here is a filter, copying, and opening what a link names.
(function () {
  const all = (selector, from) => Array.from((from || document).querySelectorAll(selector));

  const input = document.createElement("input");
  input.type = "search";
  input.placeholder = "Filter operations   /";
  input.setAttribute("aria-label", "Filter operations");
  document.getElementById("filter").append(input);

  function narrow() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const each of all("[data-find]")) {
      each.hidden = !words.every((word) => each.dataset.find.includes(word));
    }
    for (const section of all("main section[id^=tag-]")) {
      section.hidden = !all("[data-find]", section).some((each) => !each.hidden);
    }
    for (const list of all("nav ul")) {
      const empty = !all("li", list).some((each) => !each.hidden);
      list.hidden = empty;
      list.previousElementSibling.hidden = empty;
    }
  }
  input.addEventListener("input", narrow);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== input) {
      event.preventDefault();
      input.focus();
    } else if (event.key === "Escape") {
      input.value = "";
      narrow();
    }
  });

  for (const block of all("pre")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  }

  function openNamed() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") {
      target.open = true;
      target.scrollIntoView();
    }
  }
  addEventListener("hashchange", openNamed);
  openNamed();
})();
