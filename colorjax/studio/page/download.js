// The dialog that makes the file at full resolution.

import {$, saveBlob, say, stemOf, warn} from './controls.js';

export function openDownload(api, photo) {
  const {width, height, bits, ending} = photo.facts;
  $('download-size').textContent = `${width} × ${height} pixels`;
  $('format').options[0].textContent = `Like the photograph (${ending.slice(1).toUpperCase()})`;
  $('bits').options[0].textContent = `Like the photograph (${bits} bits)`;
  const dialog = $('download-dialog');
  const button = $('download-now');
  const limitBits = () => {
    const format = $('format').value === 'same' ? ending : `.${$('format').value}`;
    const isDeep = ['.png', '.tiff'].includes(format);
    $('bits').querySelector('[value="16"]').disabled = !isDeep;
    if (!isDeep && $('bits').value === '16') $('bits').value = '8';
  };
  $('format').onchange = limitBits;
  limitBits();
  button.onclick = async (event) => {
    event.preventDefault();
    button.disabled = true;
    $('download-progress').hidden = false;
    say('The file is being made …');
    const format = $('format').value;
    try {
      const blob = await api.blob(() => `photos/${photo.id}/file`, {json: {
        choices: photo.history.now, format, bits: Number($('bits').value) || null}});
      saveBlob(blob, `${stemOf(photo.name)}.colored${format === 'same' ? ending : `.${format}`}`);
      say('The file is ready.');
      dialog.close();
    } catch (error) {
      dialog.close();
      warn(`The file was not made: ${error.message}.`);
    } finally {
      button.disabled = false;
      $('download-progress').hidden = true;
    }
  };
  dialog.showModal();
}
