// What this program is called. The build puts version and commit in; run from source, package.json's version counts.

import manifest from "../../package.json" with { type: "json" };

declare const WEFT_VERSION: string | undefined;
declare const WEFT_COMMIT: string | undefined;

export const VERSION: string = typeof WEFT_VERSION === "string" ? WEFT_VERSION : manifest.version;
export const COMMIT: string = typeof WEFT_COMMIT === "string" ? WEFT_COMMIT : "unknown";

export function versionText(): string {
  return `weft ${VERSION} (commit ${COMMIT}, Bun ${Bun.version}, ${process.platform}-${process.arch})\n`;
}
