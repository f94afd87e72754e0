// The plural of a kind, as it stands in the API's paths.

export function pluralOf(kind: string): string {
  const lower = kind.toLowerCase();
  if (lower.endsWith("s")) return `${lower}es`;
  return lower.endsWith("y") && !lower.endsWith("ay") ? `${lower.slice(0, -1)}ies` : `${lower}s`;
}
