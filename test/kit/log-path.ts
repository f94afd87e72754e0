// Where the programs of a test write their logs. The runner names a folder for those of one test file, so that it can show what stood in them
// when a test failed (test/runner/failure-logs.ts); a test that runs without the runner keeps them in a folder of its own.

import { basename, join } from "node:path";

/** The environment variable with the runner's folder. */
export const LOG_FOLDER_VARIABLE = "WEFT_TEST_LOGS";

/**
 * A path for one log.
 * @param own a folder that nobody else has, with a name that nobody else has; the log is in it where the runner names none.
 */
export function logPath(own: string, name: string): string {
  const folder = process.env[LOG_FOLDER_VARIABLE];
  return folder === undefined ? join(own, name) : join(folder, `${basename(own)}-${name}`);
}
