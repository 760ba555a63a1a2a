// Small parts of the page: groups of radio buttons, messages, files.

export const $ = (id) => document.getElementById(id);

// Keyboard and state of a radio group of buttons; choose(button) is called when
// a person chooses one.
export function radios(group, choose) {
  const all = () => [...group.querySelectorAll('[role="radio"]:not([hidden])')];
  const mark = (button) => {
    for (const one of all()) {
      one.setAttribute('aria-checked', String(one === button));
      one.tabIndex = one === button ? 0 : -1;
    }
    if (!button && all().length) all()[0].tabIndex = 0;
  };
  group.addEventListener('click', (event) => {
    const button = event.target.closest('[role="radio"]');
    if (!button) return;
    mark(button);
    choose(button);
  });
  group.addEventListener('keydown', (event) => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = all();
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.focus();
    mark(next);
    choose(next);
  });
  return mark;
}

let timer = 0;

export function say(text) {
  const toast = $('status');
  toast.textContent = text;
  toast.classList.add('shown');
  clearTimeout(timer);
  timer = setTimeout(() => toast.classList.remove('shown'), 3500);
}

export function warn(text) {
  const banner = $('banner');
  banner.textContent = text || '';
  banner.hidden = !text;
  if (text) $('status').classList.remove('shown');
}

// Shows a blob in an image; the one before is forgotten.
export function showBlob(image, blob) {
  const before = image.dataset.blob;
  const url = URL.createObjectURL(blob);
  image.dataset.blob = url;
  image.src = url;
  if (before) URL.revokeObjectURL(before);
}

export function saveBlob(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

export function base64(blob) {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(',') + 1));
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(blob);
  });
}

export function blobOf(text) {
  const raw = atob(text);
  return new Blob([Uint8Array.from(raw, (c) => c.charCodeAt(0))]);
}

export const stemOf = (name) => name.replace(/\.[^.]*$/, '') || 'photograph';
export const endingOf = (name) => (/\.[a-z0-9]{1,5}$/i.exec(name) || [''])[0].toLowerCase();
