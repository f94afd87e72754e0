// Names of gRPC statuses, and the HTTP status that says the same to who does not speak gRPC.

const NAMES = [
  "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
  "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
] as const;
/** Every text for one. */
export const GRPC_STATUSES: readonly string[] = [...NAMES, ...NAMES.map((_, index) => String(index))];
const HTTP = [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401] as const;

/** `UNAVAILABLE` or `14`; null for anything else. */
export function parseGrpcStatus(text: string): number | null {
  const index = (NAMES as readonly string[]).indexOf(text);
  if (index >= 0) return index;
  return /^(0|[1-9][0-9]?)$/.test(text) && Number(text) < NAMES.length ? Number(text) : null;
}

/** @param status 0 to 16. */
export const httpStatusOfGrpc = (status: number): number => HTTP[status] ?? 500;
