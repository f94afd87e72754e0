// Facts about endpoints in which a waypoint differs from Envoy on purpose, and why.

export interface EndpointDifference {
  readonly title: string;
  readonly reason: string;
  /** `scenario / fact`. */
  readonly facts: readonly string[];
}

export const factKey = (scenario: string, fact: string): string => `${scenario} / ${fact}`;

export const ENDPOINT_DIFFERENCES: readonly EndpointDifference[] = [
  {
    title: "Keys when an endpoint fails",
    reason: "Only the keys of the endpoint that is left out move, and they come back with it. Envoy makes its ring anew of those that are left, with more points for each, which moves keys of theirs too.",
    facts: ["ring hash, when an endpoint fails / keys of the others that move then"],
  },
  {
    title: "The return of an endpoint",
    reason: "An ejection ends with one request, which decides: should it fail the endpoint stays away. Envoy gives it its whole share at once, and counts anew.",
    facts: ["ejection by errors in a row, and its time / requests that it gets on its return, still failing", "ejection by errors in a row, and its time / of which the client sees"],
  },
  {
    title: "All endpoints ejected",
    reason: "One of them is tried rather than none: what an application answers is more than we could say, and it may be well again.",
    facts: ["all left out / the answer is the proxy's own", "all left out / its status"],
  },
];

const REASONS = new Map(ENDPOINT_DIFFERENCES.flatMap(({ reason, facts }) => facts.map((key) => [key, reason] as const)));

export function endpointReasonOf(key: string): string | null {
  return REASONS.get(key) ?? null;
}
