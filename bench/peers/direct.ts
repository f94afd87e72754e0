// No proxy: what the machine itself gives.

import type { Peer } from "./peer.ts";

export const direct: Peer = {
  name: "direct",
  command: () => "no proxy",
  missing: () => null,
  idleMissing: () => "there is no proxy",
  tunnelPorts: [],
  hasSameNodePath: false,
  start: async () => ({ pids: [], assertAlive: () => {}, logTails: () => "", stop: async () => {} }),
};
