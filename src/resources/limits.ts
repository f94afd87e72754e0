// Bounds on what a configuration directory may hold, each with its reason. Beyond them the file is refused and the last
// good state of its resources stays in force.

/** A Kubernetes object may have some 1.5 MiB; a file holds a few large ones or thousands of small ones. */
export const FILE_BYTES_MAX = 4 * 1024 * 1024;
/** A document is parsed in one go, while nothing else runs on the thread. The API server's own limit is 1.5 MiB. */
export const DOCUMENT_CHARS_MAX = 1024 * 1024;
/** Documents in a file: 10 000 workload entries in one file must fit. */
export const DOCUMENTS_MAX = 20_000;
/** Items of one `List` document. */
export const LIST_ITEMS_MAX = 20_000;
/** Files read from one directory. */
export const FILES_MAX = 50_000;
/** Characters of all files together: bounds the memory of the whole. */
export const TOTAL_CHARS_MAX = 256 * 1024 * 1024;
/** The deepest kind needs 12 levels; recursion below the parser stays far from the end of the stack. */
export const NESTING_MAX = 64;
/** Nodes that aliases may add to a document: an alias bomb multiplies, honest anchors repeat a few labels. */
export const ALIASES_MAX = 100;
/** Diagnostics reported for one document: the first few explain it. */
export const DIAGNOSTICS_PER_DOCUMENT_MAX = 20;
/** Diagnostics reported by one evaluation; the last one says how many were left out. */
export const DIAGNOSTICS_MAX = 1000;
/** Rules of one policy, and values in one field: each connection may have to walk them. */
export const POLICY_RULES_MAX = 10_000;
export const POLICY_VALUES_MAX = 10_000;
/** Rules of one route resource, and alternatives of one rule: the Gateway API's own bounds are 16 and 64. */
export const ROUTE_RULES_MAX = 256;
export const ROUTE_MATCHES_MAX = 256;
/** Backends of one rule: each request draws from them. */
export const BACKENDS_MAX = 128;
/** Headers, query parameters or labels of one match. */
export const MATCH_FIELDS_MAX = 64;
/** Names or entries in any other list of an L7 kind. */
export const LIST_MAX = 1024;
/** Hosts that one resource may list. */
export const HOSTS_PER_RESOURCE_MAX = 1024;
/** Services that the hosts of one resource may cover by wildcards: every service of a large mesh. */
export const COVERED_HOSTS_MAX = 20_000;
