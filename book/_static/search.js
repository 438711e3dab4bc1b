// Formulas and code name Greek letters in Latin ones: who searches for ρ is led to what says rho.
{
  const GREEK = {
    α: "alpha", β: "beta", γ: "gamma", ε: "eps", η: "eta", λ: "lambda", μ: "mu", ν: "nu", π: "pi",
    ρ: "rho", σ: "sigma", φ: "phi", ϕ: "phi",
  };
  const asked = new URLSearchParams(location.search);
  const spelled = [...(asked.get("q") ?? "")].map((letter) => GREEK[letter] ?? letter).join("");
  if (location.pathname.endsWith("/search.html") && spelled !== (asked.get("q") ?? "")) {
    asked.set("q", spelled);
    location.replace(`${location.pathname}?${asked}`);
  }
}
