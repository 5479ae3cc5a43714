"use strict";
// The pages say everything without this script. It searches, hides rows on request, and takes
// "/" as a way to the search page. Text of results enters pages as text only (textContent).
(function () {
  const root = document.documentElement;
  root.classList.add("has-script");

  for (const box of document.querySelectorAll("[data-hide]")) {
    box.addEventListener("change", () => {
      root.classList.toggle("hide-" + box.dataset.hide, box.checked);
    });
  }
  for (const box of document.querySelectorAll("[data-source]")) {
    box.addEventListener("change", () => {
      root.classList.toggle("without-" + box.dataset.source, !box.checked);
    });
  }
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
    if (event.key === "/" && !typing && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      document.querySelector('nav[aria-label="Site"] a[href$="search.html"]').click();
    }
  });

  const words = document.getElementById("words");
  if (!words) { return; }
  const most = 200;
  const entries = JSON.parse(document.getElementById("index").textContent);
  const folded = entries.map((entry) => entry.slice(0, 3).join(" ").toLowerCase());
  const list = document.getElementById("found");
  const told = document.getElementById("told");

  function search() {
    const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    list.textContent = "";
    told.textContent = "";
    history.replaceState(null, "", "#" + encodeURIComponent(words.value));
    if (!asked.length) { return; }
    let count = 0;
    folded.forEach((text, place) => {
      if (!asked.every((word) => text.includes(word))) { return; }
      count += 1;
      if (count > most) { return; }
      const [kind, title, about, page] = entries[place];
      const item = document.createElement("li");
      const link = document.createElement("a");
      const tag = document.createElement("span");
      const more = document.createElement("span");
      tag.className = "tag";
      tag.textContent = kind;
      link.href = page;
      link.textContent = title;
      more.className = "faint";
      more.textContent = about;
      item.append(tag, " ", link, " ", more);
      list.append(item);
    });
    told.textContent = count > most ? count + " found, the first " + most + " are shown"
      : count + " found";
  }

  words.value = decodeURIComponent(location.hash.slice(1));
  words.addEventListener("input", search);
  words.focus();
  if (words.value) { search(); }
})();
