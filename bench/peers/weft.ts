// Weft itself: `weft up` on each side.

import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Peer } from "./peer.ts";

const ROOT = join(import.meta.dir, "../..");

export const weft: Peer = {
  name: "weft",
  missing: () => (existsSync(join(ROOT, "src/main.ts")) ? null : "src/main.ts is not in this tree"),
  idleMissing: () => null,
  tunnelPorts: [15008],
  hasSameNodePath: true,
  start: async () => {
    throw new Error("not measured yet");
  },
};
