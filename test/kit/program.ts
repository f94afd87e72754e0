/** One of the programs that run inside network namespaces; see programs.ts. */
export type Program = (args: readonly string[]) => Promise<void> | void;
