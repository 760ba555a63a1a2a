// The photographs of the page: their files, and what was chosen for each.

import {blobOf, base64, endingOf} from './controls.js';
import {History} from './history.js';

const KEPT = 'colorjax-studio';
const MOST_KEPT = 400; // choices of each photograph that outlive a reload

let counter = 0;

export class Photos {
  constructor(api) {
    this.api = api;
    this.all = [];
    this.references = new Map(); // digest to {name, blob}
    this.waiting = []; // choices whose photograph is not open: {digest, name, docs, at}
  }

  async send(file) {
    const ending = encodeURIComponent(endingOf(file.name || ''));
    return this.api.json(() => `photos?ending=${ending}`, {body: file});
  }

  async open(file) {
    const facts = await this.send(file);
    const photo = {key: ++counter, id: facts.id, file, name: file.name || 'photograph', facts, history: new History()};
    const kept = this.waiting.findIndex((one) => one.digest === facts.digest);
    if (kept >= 0) {
      const {docs, at} = this.waiting.splice(kept, 1)[0];
      photo.history = new History(docs, at);
    }
    this.all.push(photo);
    this.keep();
    return photo;
  }

  async close(photo) {
    this.all.splice(this.all.indexOf(photo), 1);
    this.keep();
    await this.api.ask(() => `photos/${photo.id}`, {method: 'DELETE'});
  }

  async sendReference(blob, name) {
    const ending = encodeURIComponent(endingOf(name));
    const {reference} = await this.api.json(() => `references?ending=${ending}`, {body: blob});
    this.references.set(reference, {name, blob});
    return reference;
  }

  // Gives a new session of the server what the old one held. Requests go around
  // the waiting of the API, which waits for this.
  async restore() {
    for (const photo of [...this.all]) {
      if (!photo.file) {
        this.forget(photo);
        continue;
      }
      const facts = await (await this.api.once('photos', {body: photo.file})).json();
      photo.id = facts.id;
    }
    for (const {blob} of this.references.values()) {
      await this.api.once('references', {body: blob});
    }
    this.keep();
  }

  // A photograph whose file neither the page nor the server has any more.
  forget(photo) {
    this.all.splice(this.all.indexOf(photo), 1);
    this.waiting.push({digest: photo.facts.digest, name: photo.name, docs: photo.history.docs, at: photo.history.at});
  }

  keep() {
    const entry = ({name, facts, history: {docs, at}, id}) => {
      const first = Math.max(0, Math.min(at, docs.length - MOST_KEPT));
      return {id, name, facts, digest: facts.digest, docs: docs.slice(first, first + MOST_KEPT), at: at - first};
    };
    try {
      sessionStorage.setItem(KEPT, JSON.stringify({
        session: this.api.session, photos: this.all.map(entry), waiting: this.waiting}));
    } catch { /* storage is full or forbidden */ }
  }

  // Continues after the page was loaded again.
  async resume() {
    let kept = null;
    try {
      kept = JSON.parse(sessionStorage.getItem(KEPT));
    } catch { /* storage is forbidden */ }
    if (!kept) return;
    this.waiting = kept.waiting || [];
    let there = [];
    if (kept.session) {
      this.api.session = kept.session;
      try {
        there = (await (await this.api.once('photos')).json()).photos.map((one) => one.id);
      } catch {
        this.api.session = null;
      }
    }
    for (const {id, name, facts, docs, at} of kept.photos) {
      const photo = {key: ++counter, id, file: null, name, facts, history: new History(docs, at)};
      this.all.push(photo);
      if (!there.includes(id)) this.forget(photo);
    }
  }

  // The session file: a photograph's choices, with the reference's file inside.
  async saved(photo) {
    const doc = photo.history.now;
    const reference = this.references.get(doc.reference);
    return new Blob([JSON.stringify({
      format: 'colorjax studio', version: 1,
      photograph: {name: photo.name, digest: photo.facts.digest, width: photo.facts.width, height: photo.facts.height},
      choices: doc,
      reference: reference ? {name: reference.name, data: await base64(reference.blob)} : null,
    }, null, 1)], {type: 'application/json'});
  }

  // Reads a session file; the result is {name, digest, choices}.
  async read(file) {
    const value = JSON.parse(await file.text());
    if (value?.format !== 'colorjax studio' || value.version !== 1 || !value.photograph || !value.choices) {
      throw new Error('this file was not saved by the studio');
    }
    const {choices, photograph, reference} = value;
    if (choices.reference) {
      if (!reference) throw new Error('the reference photograph is missing in this file');
      choices.reference = await this.sendReference(blobOf(reference.data), String(reference.name));
    }
    return {name: String(photograph.name), digest: String(photograph.digest), choices};
  }
}
