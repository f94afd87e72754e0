// Entry of a data thread's Worker: messages in, messages out, nothing else.

import { systemClock, systemRandom } from "../core/ports.ts";
import { TurnClock } from "../net/turn-clock.ts";
import type { ThreadAnswer } from "../runtime/worker-threads.ts";
import { WaypointDataPlane } from "./data-plane.ts";
import type { FromWaypoint, ToWaypoint } from "./messages.ts";

declare const self: { onmessage: ((event: { data: ToWaypoint }) => void) | null; postMessage(message: FromWaypoint | ThreadAnswer, transfer?: readonly ArrayBuffer[]): void };

let plane: WaypointDataPlane | null = null;
const post = (message: FromWaypoint | ThreadAnswer): void => (message.kind === "log" ? self.postMessage(message, [message.lines.buffer]) : self.postMessage(message));

self.onmessage = ({ data: message }) => {
  if (message.kind === "configure") {
    plane = new WaypointDataPlane(message.config, { clock: new TurnClock(systemClock), random: systemRandom }, post, { credits: message.credits, pulse: message.pulse });
    post({ kind: "answer", question: "ready", value: null });
    return;
  }
  if (plane === null) throw new Error(`data thread: ${message.kind} came before configure`);
  plane.receive(message);
};
