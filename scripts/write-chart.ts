// `npm run chart`: writes deploy/chart from src/cli/install. The result is committed; deploy/chart.test.ts compares.

import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { chartFiles } from "../src/cli/install/chart.ts";
import { VERSION } from "../src/runtime/version.ts";

const chart = join(import.meta.dir, "../deploy/chart");
rmSync(join(chart, "templates"), { recursive: true, force: true });
for (const [path, text] of chartFiles(VERSION)) {
  mkdirSync(dirname(join(chart, path)), { recursive: true });
  writeFileSync(join(chart, path), text);
  console.log(`deploy/chart/${path}`);
}
