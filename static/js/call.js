// @ts-check
/** The call screen: joins the call, the devices, the picture, the chat and the people. */

import { Chat } from './chat.js';
import { byId, make, setOn } from './dom.js';
import { sayProblem, sayTrouble } from './lobby.js';
import { Panel } from './panel.js';
import { People } from './people.js';
import { Stage } from './stage.js';
import { setLabel, t } from './text.js';

/** @typedef {import('./media.js').Devices} Devices */
/** @typedef {import('./protocol.js').Call} Call */
/** @typedef {import('./protocol.js').Participant} Participant */

const TOAST_MS = 5000;
const TOASTS = 3;

export class CallScreen {
  #sound = /** @type {HTMLAudioElement} */ (byId('sound-out'));
  #soundButton = byId('sound');
  #status = byId('status');
  #panel = new Panel();
  #people = new People(byId('people-list'));
  #chat = new Chat({
    log: byId('chat-log'),
    form: /** @type {HTMLFormElement} */ (byId('chat-form')),
    input: /** @type {HTMLTextAreaElement} */ (byId('chat-input')),
  });
  #stage;
  #devices;
  /** @type {Call | null} */
  #call = null;
  /** @type {Map<string, Participant>} */
  #participants = new Map();
  #you = '';
  #pictureShown = false;
  #title = '';
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #countdown = undefined;
  #unlock = () => this.#startSound();

  /**
   * @param {{devices: Devices, onLeave: () => void}} parts
   */
  constructor({ devices, onLeave }) {
    this.#devices = devices;
    this.#stage = new Stage({
      picture: byId('picture'),
      video: /** @type {HTMLVideoElement} */ (byId('stage')),
      tiles: byId('tiles'),
      onTurn: () => this.#call?.cameraTurned(),
      onPicture: () => {
        this.#pictureShown = true;
        this.#showStatus();
      },
    });
    byId('mute').addEventListener('click', () => void devices.setMicrophone(!devices.microphoneOn));
    byId('camera').addEventListener('click', () => void devices.setCamera(!devices.cameraOn));
    byId('leave').addEventListener('click', onLeave);
    byId('copy-link').addEventListener('click', () => void this.#copyLink());
    byId('alone-copy').addEventListener('click', () => void this.#copyLink());
    this.#soundButton.addEventListener('click', () => this.#startSound());
    document.addEventListener('keydown', (event) => this.#shortcut(event));
    document.addEventListener('visibilitychange', () => void this.#keepAwake());
    devices.on('change', () => void this.#devicesChanged());
    this.#panel.on('change', (name) => this.#chat.setVisible(name === 'chat'));
    this.#chat.on('send', (request) => {
      request.sent = this.#call?.send({ type: 'chat', text: request.text }) ?? false;
    });
    this.#chat.on('unread', (count) => this.#showUnread(count));
  }

  /** What tests and the curious may look at. */
  get debug() {
    const screen = this;
    return Object.freeze({
      get pc() {
        return screen.#call?.pc ?? null;
      },
      get phase() {
        return screen.#call?.phase ?? 'idle';
      },
      get you() {
        return screen.#you;
      },
      get participants() {
        return [...screen.#participants.values()].map((person) => ({ ...person }));
      },
      get lastLayout() {
        return structuredClone(screen.#stage.lastLayout);
      },
      get appliedLayout() {
        return structuredClone(screen.#stage.appliedLayout);
      },
    });
  }

  /**
   * @param {Call} call
   */
  attach(call) {
    this.#call = call;
    this.#title = document.title;
    this.#pictureShown = false;
    byId('room-name').textContent = call.room;
    this.#panel.show(null);
    call.on('phase', (state) => this.#showStatus(state));
    call.on('media', ({ audio, video }) => {
      this.#stage.setPicture(video);
      this.#sound.srcObject = new MediaStream([audio]);
      this.#startSound();
    });
    call.on('welcome', (message) => this.#welcome(message));
    call.on('history', ({ chat }) => this.#chat.remember(chat));
    call.on('joined', ({ participant }) => {
      const known = this.#participants.has(participant.id);
      this.#participants.set(participant.id, participant);
      this.#showPeople();
      if (!known && participant.id !== this.#you) this.#toast(t('people.joined', { name: participant.name }));
    });
    call.on('updated', ({ participant }) => {
      this.#participants.set(participant.id, participant);
      this.#showPeople();
    });
    call.on('left', ({ id }) => {
      const person = this.#participants.get(id);
      this.#participants.delete(id);
      this.#showPeople();
      if (person && id !== this.#you) this.#toast(t('people.left', { name: person.name }));
    });
    call.on('chat', (line) => {
      this.#chat.add(line);
      if (line.from !== this.#you && this.#panel.open !== 'chat') {
        this.#toast(t('chat.toast', { name: line.name, text: line.text }));
      }
    });
    call.on('speaking', ({ ids }) => {
      const speaking = new Set(/** @type {string[]} */ (ids));
      this.#stage.setSpeaking(speaking);
      this.#people.setSpeaking(speaking);
    });
    call.on('layout', (layout) => this.#stage.announce(layout));
    call.on('error', ({ code, reason }) => {
      if (code !== 'draining') this.#toast(reason || t('problem.unknown'));
    });
    void this.#devicesChanged();
    void this.#keepAwake();
  }

  /** Forgets the call: nothing of it stays on the screen. */
  detach() {
    this.#call = null;
    this.#participants = new Map();
    this.#you = '';
    clearInterval(this.#countdown);
    this.#stage.clear();
    this.#chat.clear();
    this.#people.clear();
    this.#sound.srcObject = null;
    this.#soundButton.hidden = true;
    byId('alone').hidden = true;
    byId('toasts').replaceChildren();
    document.title = this.#title;
    void this.#keepAwake();
  }

  /**
   * @param {{you: string, participants: Participant[], layout: import('./layout.js').Layout | null,
   *   chat: import('./protocol.js').ChatLine[]}} message
   */
  #welcome({ you, participants, layout, chat }) {
    this.#you = you;
    this.#participants = new Map(participants.map((person) => [person.id, person]));
    this.#stage.setYou(you);
    this.#stage.announce(layout);
    this.#chat.remember(chat ?? [], you);
    this.#showPeople();
  }

  #showPeople() {
    const count = this.#participants.size;
    this.#people.show(this.#participants, this.#you);
    this.#stage.setPeople(this.#participants);
    byId('people-count').textContent = count ? String(count) : '';
    byId('alone').hidden = !(count === 1 && this.#participants.has(this.#you));
  }

  async #devicesChanged() {
    const devices = this.#devices;
    const microphoneOn = devices.microphoneOn;
    const cameraOn = devices.cameraOn;
    setOn(byId('mute'), microphoneOn);
    setOn(byId('camera'), cameraOn);
    setLabel(byId('mute'), microphoneOn ? 'call.mute' : 'call.unmute');
    setLabel(byId('camera'), cameraOn ? 'call.camera_off' : 'call.camera_on');
    byId('mute').toggleAttribute('data-trouble', devices.trouble('microphone') !== null);
    byId('camera').toggleAttribute('data-trouble', devices.trouble('camera') !== null);
    const call = this.#call;
    if (!call || call.phase === 'ended') return;
    const trouble = sayTrouble(devices);
    if (trouble && trouble !== byId('status').dataset.trouble) this.#toast(trouble);
    byId('status').dataset.trouble = trouble;
    this.#stage.setOwnCamera(cameraOn ? devices.camera : null);
    const state = call.state;
    // The words go first, so that nobody sees a still picture or hears the last syllable.
    if (state.muted === microphoneOn) call.setState({ muted: !microphoneOn });
    if (state.camera && !cameraOn) call.setState({ camera: false });
    await Promise.all([call.setMicrophone(devices.microphone), call.setCamera(devices.camera)]);
    if (!call.state.camera && this.#devices.cameraOn) call.setState({ camera: true });
    const me = this.#participants.get(this.#you);
    if (!me) return;
    // One's own marks do not wait for the server's answer.
    this.#participants.set(me.id, { ...me, muted: call.state.muted, camera: call.state.camera });
    this.#showPeople();
  }

  /**
   * @param {{phase: string, problem: import('./protocol.js').Problem | null, retryAtMs: number}} [state]
   */
  #showStatus({ phase, problem, retryAtMs } = { phase: this.#call?.phase ?? 'idle', problem: null, retryAtMs: 0 }) {
    clearInterval(this.#countdown);
    this.#chat.setConnected(phase === 'connected' || phase === 'unstable');
    byId('call-screen').dataset.phase = phase;
    if (phase === 'reconnecting') {
      this.#pictureShown = false;
      const why = problem && problem.code !== 'lost' ? sayProblem(problem) : t('status.lost');
      const show = () => {
        const seconds = Math.ceil((retryAtMs - Date.now()) / 1000);
        const then = seconds > 1 ? t('status.retry_in', { seconds }) : t('status.retrying');
        this.#say(`${why} ${then}`);
      };
      show();
      this.#countdown = setInterval(show, 1000);
    } else if (phase === 'unstable') {
      this.#say(t('status.unstable'));
    } else if (phase === 'joining') {
      this.#say(t('status.connecting'));
    } else if (phase === 'connected' && !this.#pictureShown) {
      this.#say(t('status.waiting_picture'));
    } else {
      this.#say('');
    }
  }

  /** @param {string} text */
  #say(text) {
    if (this.#status.textContent !== text) this.#status.textContent = text;
    this.#status.hidden = !text;
  }

  /** A browser may refuse sound before a gesture: then a button asks for one. */
  #startSound() {
    if (!this.#sound.srcObject) return;
    this.#sound.play().then(
      () => {
        this.#soundButton.hidden = true;
        document.removeEventListener('pointerdown', this.#unlock);
      },
      (error) => {
        if (error instanceof DOMException && error.name !== 'NotAllowedError') return;
        this.#soundButton.hidden = false;
        document.addEventListener('pointerdown', this.#unlock);
      },
    );
  }

  async #copyLink() {
    const link = location.href.split(/[?#]/)[0];
    try {
      await navigator.clipboard.writeText(link);
      this.#toast(t('call.copied'));
    } catch {
      // No clipboard outside https, or refused: the link is shown to be copied by hand.
      this.#toast(t('call.copy_by_hand', { link }));
    }
  }

  /** @param {string} text */
  #toast(text) {
    const toasts = byId('toasts');
    const toast = make('p', 'toast', text);
    toast.dir = 'auto';
    toasts.append(toast);
    while (toasts.childElementCount > TOASTS) toasts.firstElementChild?.remove();
    setTimeout(() => toast.remove(), TOAST_MS);
  }

  /** @param {number} count */
  #showUnread(count) {
    byId('chat-unread').textContent = count ? String(Math.min(count, 99)) : '';
    setLabel(byId('chat-toggle'), 'panel.chat');
    if (count) byId('chat-toggle').setAttribute('aria-label', t('chat.unread', { count }));
    if (this.#call) document.title = count ? `(${count}) ${this.#title}` : this.#title;
  }

  /** @param {KeyboardEvent} event */
  #shortcut(event) {
    if (!this.#call || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const target = /** @type {HTMLElement} */ (event.target);
    if (target.closest?.('input, textarea, select, [contenteditable]')) return;
    /** @type {Record<string, string>} */
    const buttons = { m: 'mute', v: 'camera', c: 'chat-toggle', p: 'people-toggle', l: 'copy-link' };
    const id = buttons[event.key.toLowerCase()];
    if (!id) return;
    event.preventDefault();
    byId(id).click();
  }

  /** @type {WakeLockSentinel | null} */
  #wakeLock = null;

  /** A call keeps the screen on, as long as one looks at it. */
  async #keepAwake() {
    if (!this.#call) {
      await this.#wakeLock?.release().catch(() => {});
      this.#wakeLock = null;
    } else if (document.visibilityState === 'visible' && (!this.#wakeLock || this.#wakeLock.released)) {
      this.#wakeLock = (await navigator.wakeLock?.request('screen').catch(() => null)) ?? null;
    }
  }
}
