// The page: puts its parts together.

import {Api} from './api.js';
import {Colorings} from './colorings.js';
import {$, saveBlob, say, showBlob, stemOf, warn} from './controls.js';
import {START} from './history.js';
import {Latest} from './latest.js';
import {Photos} from './photos.js';
import {Tabs} from './tabs.js';
import {Tools} from './tools.js';
import {openDownload} from './download.js';

const api = new Api({
  restore: () => photos.restore(),
  tell(state) {
    if (state === 'away') {
      warn('The studio has stopped answering. Your choices are kept here; they go on as soon as it is back.');
      return;
    }
    warn(null);
    say(state === 'back' ? 'The studio is back.' : 'The session had ended; it was made again.');
    if (current) refresh(true);
    else if (photos.all.length) open(photos.all[0]);
    else home();
  },
});
const photos = new Photos(api);
let models = [];
let limits = {};
let current = null;
let shown = 0;

const tools = new Tools(api, {change, photo: () => current});
const colorings = new Colorings(api, (coloring) => tools.take(coloring));
tools.onSelect = () => {
  if (current) colorings.select(tools.selected(current.history.now));
};
const tabs = new Tabs(api, {open, close});

const picture = new Latest(
    (asked) => api.blob(() => `photos/${asked.photo.id}/picture`, {json: {choices: asked.doc}}),
    (blob, asked) => {
      if (asked.photo !== current) return;
      showBlob($('picture'), blob);
      $('picture').dataset.shown = JSON.stringify(asked.doc);
      $('picture').dataset.count = ++shown;
      if (asked.doc === current.history.now) colorings.show(current, asked.doc);
    }, {
      busy: (is) => busy(is),
      fail: (error, asked) => failed(error, asked),
    });

let timer = 0;

function busy(is) {
  clearTimeout(timer);
  if (is) timer = setTimeout(() => { $('busy').hidden = false; }, 250);
  else $('busy').hidden = true;
}

function failed(error, asked) {
  warn(sentence(error.message));
  if (error.status === 422 && asked && asked.photo === current && asked.doc === current.history.now &&
      current.history.canUndo) {
    // The server cannot do this; what was there before stays.
    current.history.undo();
    current.history.docs.splice(current.history.at + 1);
    refresh();
  }
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

// Takes new choices for the photograph; words for screen readers say what.
function change(entries, words) {
  if (!current) return;
  if (current.history.change(entries)) refresh();
  if (words) say(words);
}

function refresh(all = false) {
  const {history} = current;
  const doc = history.now;
  warn(null);
  $('undo').disabled = !history.canUndo;
  $('redo').disabled = !history.canRedo;
  if (all) {
    colorings.forget();
    tools.forget();
    showOriginal();
    tabs.show(photos.all, current);
  }
  const model = modelOf(doc);
  $('model').value = model.name;
  $('more').hidden = !model.has_seeds;
  $('uncertain').hidden = model.num_colorings < 2;
  if (model.num_colorings < 2) $('uncertain').setAttribute('aria-pressed', 'false');
  const percent = doc.saturation === null ? 100 : Math.round(100 * doc.saturation / (model.saturation || 1));
  $('saturation').value = percent;
  $('saturation-value').textContent = `${percent} %`;
  const reference = photos.references.get(doc.reference);
  $('reference-name').textContent = doc.reference ? reference?.name || 'another photograph' : 'the model\'s';
  $('no-reference').hidden = !doc.reference;
  tools.show(current, doc);
  colorings.select(tools.selected(doc));
  picture.ask({photo: current, doc});
  showMap();
  photos.keep();
}

const modelOf = (doc) => models.find((one) => one.name === doc.model) || models[0];

async function showOriginal() {
  const photo = current;
  const blob = await api.blob(() => `photos/${photo.id}/original`);
  if (photo === current) showBlob($('before'), blob);
}

const maps = new Latest(
    ({photo, doc}) => api.blob(() => `photos/${photo.id}/uncertainty`, {json: {choices: doc}}),
    async (blob, asked) => {
      if (asked.photo !== current) return;
      const image = await createImageBitmap(blob);
      const map = $('map');
      [map.width, map.height] = [image.width, image.height];
      const pen = map.getContext('2d');
      pen.drawImage(image, 0, 0);
      const pixels = pen.getImageData(0, 0, map.width, map.height);
      for (let i = 0; i < pixels.data.length; i += 4) {
        const level = pixels.data[i];
        pixels.data.set([255, 215 - 0.6 * level, 60 - 0.2 * level, level], i);
      }
      pen.putImageData(pixels, 0, 0);
      map.dataset.key = asked.key;
    }, {fail: (error) => warn(sentence(error.message))});

function showMap() {
  const isOn = $('uncertain').getAttribute('aria-pressed') === 'true';
  $('map').hidden = !isOn;
  if (!isOn) return;
  const {model, saturation, reference, coloring} = current.history.now;
  const key = JSON.stringify([current.key, model, saturation, reference, coloring.seed]);
  if ($('map').dataset.key !== key) maps.ask({photo: current, doc: current.history.now, key});
}

function open(photo) {
  current = photo;
  colorings.seed = photo.history.now.coloring.seed;
  document.body.dataset.state = 'photo';
  document.title = `${photo.name} – colorjax studio`;
  tools.stage.open(photo.facts.width, photo.facts.height);
  tools.open(photo);
  $('picture').removeAttribute('src');
  refresh(true);
}

function home() {
  current = null;
  document.body.dataset.state = 'empty';
  document.title = 'colorjax studio';
  tabs.show(photos.all, current);
  const [waiting] = photos.waiting;
  if (waiting) warn(`Choices for ${waiting.name} are kept. Open that photograph to go on.`);
}

async function close(photo) {
  await photos.close(photo);
  if (photo === current) {
    if (photos.all.length) open(photos.all[0]);
    else home();
  } else {
    tabs.show(photos.all, current);
  }
}

async function add(files) {
  warn(null);
  for (const file of files) {
    const name = file.name || 'photograph';
    if (file.name?.toLowerCase().endsWith('.json')) {
      await openChoices(file);
      continue;
    }
    if (file.size > limits.file_bytes) {
      warn(`${name} has ${Math.round(file.size / 1e6)} MB; at most ${Math.round(limits.file_bytes / 1e6)} MB can be opened.`);
      continue;
    }
    say(`Opening ${name} …`);
    busy(true);
    document.body.setAttribute('aria-busy', 'true');
    try {
      const photo = await photos.open(file);
      if (photo.facts.pictures > 1) say(`${name} holds ${photo.facts.pictures} pictures; this is the first.`);
      else say(`${name} is open.`);
      open(photo);
    } catch (error) {
      warn(`${name} was not opened: ${error.message.replace(/^the photograph[^:]*: /, '')}.`);
    } finally {
      busy(false);
      document.body.removeAttribute('aria-busy');
    }
  }
}

async function openChoices(file) {
  try {
    const {name, digest, choices} = await photos.read(file);
    const photo = photos.all.find((one) => one.facts.digest === digest);
    if (photo) {
      // The server checks what a file says before it becomes a choice.
      await api.blob(() => `photos/${photo.id}/picture`, {json: {choices, longest: 64}});
      if (photo !== current) open(photo);
      change({...START, ...choices}, `Opened the choices for ${name}.`);
    } else {
      photos.waiting.push({digest, name, docs: [START, {...START, ...choices}], at: 1});
      photos.keep();
      warn(`These choices belong to ${name}. Open that photograph to see them.`);
    }
  } catch (error) {
    warn(`${file.name} was not opened: ${error.message}.`);
  }
}

function listen() {
  const chosen = (input, use) => input.addEventListener('change', () => {
    const files = [...input.files];
    input.value = '';
    if (files.length) use(files);
  });
  chosen($('file'), add);
  chosen($('choices-file'), ([file]) => openChoices(file));
  chosen($('reference-file'), async ([file]) => {
    try {
      const reference = await photos.sendReference(file, file.name);
      change({reference}, `The palette of ${file.name} is used.`);
    } catch (error) {
      warn(`${file.name} was not opened: ${error.message}.`);
    }
  });
  for (const id of ['choose', 'add']) $(id).addEventListener('click', () => $('file').click());
  for (const id of ['open', 'open-empty']) $(id).addEventListener('click', () => $('choices-file').click());
  $('reference').addEventListener('click', () => $('reference-file').click());
  $('no-reference').addEventListener('click', () => change({reference: null}, 'Palette removed.'));
  $('undo').addEventListener('click', () => travel('undo'));
  $('redo').addEventListener('click', () => travel('redo'));
  $('start-over').addEventListener('click', () => change(
      {...START, model: current.history.now.model}, 'Everything is as at the start; Undo brings it back.'));
  $('save').addEventListener('click', async () => saveBlob(await photos.saved(current), `${stemOf(current.name)}.studio.json`));
  $('download').addEventListener('click', () => openDownload(api, current));
  $('saturation').addEventListener('input', () => { $('saturation-value').textContent = `${$('saturation').value} %`; });
  $('saturation').addEventListener('change', () => {
    const percent = Number($('saturation').value);
    const {saturation} = modelOf(current.history.now);
    change({saturation: percent === 100 ? null : saturation * percent / 100});
  });
  $('model').addEventListener('change', () => {
    colorings.seed = null;
    change({model: $('model').value, coloring: START.coloring, regions: []});
  });
  $('more').addEventListener('click', () => {
    colorings.seed = colorings.seed === null ? 0 : colorings.seed + 1;
    colorings.show(current, current.history.now);
    say('Other colorings are being made.');
  });
  $('uncertain').addEventListener('click', () => {
    const is = $('uncertain').getAttribute('aria-pressed') === 'true';
    $('uncertain').setAttribute('aria-pressed', String(!is));
    if (!is) say('Orange: here the colorings differ.');
    showMap();
  });
  window.addEventListener('keydown', (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || !current || $('download-dialog').open) return;
    const key = event.key.toLowerCase();
    if (key === 'z') travel(event.shiftKey ? 'redo' : 'undo');
    else if (key === 'y') travel('redo');
    else return;
    event.preventDefault();
  });
  let depth = 0;
  const hasFiles = (event) => [...(event.dataTransfer?.types || [])].includes('Files');
  window.addEventListener('dragenter', (event) => {
    if (hasFiles(event)) { depth++; $('drop').hidden = false; }
  });
  window.addEventListener('dragleave', () => {
    depth = Math.max(0, depth - 1);
    if (!depth) $('drop').hidden = true;
  });
  window.addEventListener('dragover', (event) => event.preventDefault());
  window.addEventListener('drop', (event) => {
    event.preventDefault();
    depth = 0;
    $('drop').hidden = true;
    if (event.dataTransfer.files.length) add([...event.dataTransfer.files]);
  });
  window.addEventListener('paste', (event) => {
    if (event.clipboardData?.files.length) add([...event.clipboardData.files]);
  });
}

function travel(which) {
  const {history} = current;
  if (which === 'undo' ? !history.canUndo : !history.canRedo) return;
  history[which]();
  refresh();
  say(which === 'undo' ? 'Undone.' : 'Done again.');
}

async function begin() {
  listen();
  for (;;) {
    let status = null;
    try {
      status = await api.status();
    } catch {
      warn('The studio does not answer yet.');
    }
    if (status?.problem) {
      warn(sentence(status.problem));
      return;
    }
    if (status?.is_ready) {
      ({models, limits} = status);
      break;
    }
    if (status && document.body.dataset.loading !== 'true') {
      document.body.dataset.loading = 'true';
      say('The model is being loaded …');
    }
    await new Promise((done) => setTimeout(done, 400));
  }
  warn(null);
  delete document.body.dataset.loading;
  $('model-row').hidden = models.length < 2;
  $('model').replaceChildren(...models.map(({name}) => new Option(name, name)));
  await photos.resume();
  if (!api.session) await api.start();
  if (photos.all.length) open(photos.all[0]);
  else home();
  document.body.dataset.ready = 'true';
}

begin();
