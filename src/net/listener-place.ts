// The order in which processes came to listen at the same ports of one network namespace, known to all of them: each holds a place there, a
// name in the namespace's abstract unix sockets, which the kernel gives back when it ends, however it ends. Whoever retreats has to know
// whether the others' sockets come before or after its own (listener-retreat.ts), which the kernel tells nobody, and which stays so only
// while no more than two are there: a third one waits until the first has closed its sockets.

import { close, SOCK_DGRAM } from "./libc.ts";
import { inNamespace } from "./namespace.ts";
import { bindUnix, connectUnix } from "./unix-socket.ts";

/** One more than may be there at once: so the place of each says who came before it. They are taken in turn. */
const PLACES = 3;
const addressOf = (place: number): string => `@weft-listeners/${place % PLACES}`;

/** Somebody has it. Whoever lives in the namespace may pretend to, and harms nobody else. */
function isTaken(place: number): boolean {
  const connected = connectUnix(addressOf(place), SOCK_DGRAM);
  if ("error" in connected) return false;
  close(connected.fd);
  return true;
}

export class ListenerPlace {
  readonly #namespaceFd: number;
  readonly #place: number;
  /** Somebody was there. */
  readonly #cameSecond: boolean;
  #fd: number;

  private constructor(namespaceFd: number, taken: { readonly place: number; readonly cameSecond: boolean; readonly fd: number }) {
    this.#namespaceFd = namespaceFd;
    this.#place = taken.place;
    this.#cameSecond = taken.cameSecond;
    this.#fd = taken.fd;
  }

  /**
   * To be taken before the first socket listens.
   * @param namespaceFd borrowed until the place is released.
   * @returns null while two others are there.
   */
  static take(namespaceFd: number): ListenerPlace | null {
    const taken = inNamespace(namespaceFd, () => {
      const others = [0, 1, 2].filter(isTaken);
      if (others.length > 1) return null;
      const place = others.length === 0 ? 0 : (others[0]! + 1) % PLACES;
      const bound = bindUnix(addressOf(place), SOCK_DGRAM);
      return "error" in bound ? null : { place, cameSecond: others.length > 0, fd: bound.fd };
    });
    return taken === null ? null : new ListenerPlace(namespaceFd, taken);
  }

  /** Whoever was there first is there still: its sockets come before ours. Else those of a later one, if there is one, come after ours. */
  get isSecond(): boolean {
    return this.#cameSecond && inNamespace(this.#namespaceFd, () => isTaken(this.#place + PLACES - 1));
  }

  /** When our sockets are closed. Idempotent. */
  release(): void {
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }
}
