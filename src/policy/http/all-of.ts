// Several tests as one; the usual one or two without a loop.

export function allOf<F>(tests: readonly ((facts: F) => boolean)[]): ((facts: F) => boolean) | null {
  const [first, second] = tests;
  if (first === undefined) return null;
  if (second === undefined) return first;
  if (tests.length === 2) return (facts) => first(facts) && second(facts);
  return (facts) => {
    for (const test of tests) if (!test(facts)) return false;
    return true;
  };
}
