// Errors as the CNI specification 1.1 wants them: JSON on standard output, and a status that is not 0.

export interface PluginError {
  readonly code: number;
  readonly message: string;
  readonly details: string;
}

/** Codes of the specification, section "Error"; those from 100 on are the plugin's own. */
export const ERROR_CODES = {
  incompatibleVersion: 1,
  unknownContainer: 3,
  badEnvironment: 4,
  io: 5,
  decoding: 6,
  badConfiguration: 7,
  tryAgainLater: 11,
  notAvailable: 50,
  limited: 51,
  /** The agent answered, and its answer is no. */
  refused: 100,
} as const;

export type PluginErrorKind = keyof typeof ERROR_CODES;

export function pluginError(kind: PluginErrorKind, message: string, details = ""): PluginError {
  return { code: ERROR_CODES[kind], message, details };
}

/** @param cniVersion that of the configuration; the newest we know when it could not be read. */
export function formatPluginError(error: PluginError, cniVersion: string): string {
  return `${JSON.stringify({ cniVersion, code: error.code, msg: error.message, ...(error.details === "" ? {} : { details: error.details }) })}\n`;
}
