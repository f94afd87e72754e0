// Entry of a data thread's Worker: messages in, messages out, nothing else.

import { systemClock, systemRandom } from "../core/ports.ts";
import { DataPlane } from "./data-plane.ts";
import type { ThreadAnswer } from "../runtime/worker-threads.ts";
import type { FromData, ToData } from "./messages.ts";

declare const self: { onmessage: ((event: { data: ToData }) => void) | null; postMessage(message: FromData | ThreadAnswer, transfer?: readonly ArrayBuffer[]): void };

let plane: DataPlane | null = null;
const post = (message: FromData | ThreadAnswer): void => (message.kind === "log" ? self.postMessage(message, [message.lines.buffer]) : self.postMessage(message));

self.onmessage = ({ data: message }) => {
  if (message.kind === "configure") {
    plane = new DataPlane(message.config, { clock: systemClock, random: systemRandom }, post, { logCredit: message.logCredit, pulse: message.pulse });
    post({ kind: "answer", question: "ready", value: null });
    return;
  }
  if (plane === null) throw new Error(`data thread: ${message.kind} came before configure`);
  plane.receive(message);
};
