// Images that are dropped or pasted, a button that copies the path, and "/" for the search field.
// Every page works without this file.
"use strict";

const form = document.getElementById("drop");
const field = document.getElementById("file");

function send(files) {
  const images = Array.from(files).filter((file) => file.type.startsWith("image/"));
  if (!images.length || !form) return false;
  const transfer = new DataTransfer();
  transfer.items.add(images[0]);
  field.files = transfer.files;
  form.submit();
  return true;
}

if (form) {
  field.addEventListener("change", () => send(field.files));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("dragging");
    event.preventDefault();
    send(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (send(event.clipboardData.files)) event.preventDefault();
  });
}

document.addEventListener("keydown", (event) => {
  const writing = event.target.closest("input, textarea, select");
  if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    document.getElementById("q")?.focus();
  }
});

const copy = document.getElementById("copy");
if (copy && navigator.clipboard) {
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById("path").value);
    copy.textContent = "Copied";
  });
}
