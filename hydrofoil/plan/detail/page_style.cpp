#include "hydrofoil/plan/detail/page_assets.h"

namespace hydrofoil::plan::detail {

// Permanent state is shades of blue, what comes and goes has hues that are told apart with any colour vision.
const std::string_view kPageStyle = R"css(
:root { color-scheme: light dark; --page: #ffffff; --panel: #f6f7f9; --ink: #1b2127; --soft: #5a6572; --line: #d9dee4;
  --parameters: #1f4e8c; --gradients: #3b74b9; --masters: #7aa6d8; --states: #b5cfec; --slots: #e08214; --activations: #2a9d72;
  --workspace: #9467bd; --forward: #a7b1bd; --backward: #6c7886; --update: #39434e; --gather: #e08214; --reduce: #b83a63; --limit: #c4161c;
  --stage1: #1f4e8c; --stage2: #e08214; --stage3: #2a9d72; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --panel: #1d2329; --ink: #e6eaee; --soft: #9aa6b2; --line: #343d46;
  --parameters: #2f66ad; --gradients: #4a86cc; --masters: #7fb0e3; --states: #b9d5f2; --slots: #f0983a; --activations: #3cb98a;
  --workspace: #b08ad6; --forward: #76828f; --backward: #a9b4bf; --update: #dde3e8; --gather: #f0983a; --reduce: #e0668c; --limit: #ff6b6b;
  --stage1: #7fb0e3; --stage2: #f0983a; --stage3: #3cb98a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 16px; max-width: 1240px; background: var(--page); color: var(--ink); font: 14px/1.45 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 20px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 28px 0 8px; }
p { margin: 4px 0 10px; } .soft { color: var(--soft); }
.numbers { display: flex; flex-wrap: wrap; gap: 8px; margin: 14px 0; }
.numbers div { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 6px 12px; }
.numbers b { display: block; font-size: 18px; } .over b { color: var(--limit); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; padding: 0; margin: 6px 0; list-style: none; font-size: 12px; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; vertical-align: -1px; }
.bar { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 10px; min-height: 26px; font-size: 12px; }
button { font: inherit; color: var(--ink); background: var(--panel); border: 1px solid var(--line); border-radius: 5px; padding: 2px 10px; cursor: pointer; }
button[hidden] { display: none; }
svg { display: block; width: 100%; overflow: hidden; touch-action: pan-y; user-select: none; }
svg text { font-size: 11px; fill: var(--ink); } svg .soft { fill: var(--soft); }
svg .halo { paint-order: stroke; stroke: var(--page); stroke-width: 4px; stroke-linejoin: round; font-weight: 600; }
svg .grid { stroke: var(--line); } svg .label { fill: #fff; pointer-events: none; }
@media (prefers-color-scheme: dark) { svg .label { fill: #14181c; } }
#tip { position: absolute; z-index: 2; pointer-events: none; max-width: min(330px, calc(100vw - 16px)); padding: 7px 10px; border-radius: 6px;
  background: var(--panel); border: 1px solid var(--soft); box-shadow: 0 2px 10px #0004; font-size: 12px; overflow-wrap: anywhere; }
#tip[hidden] { display: none; } #tip b { display: block; } #tip table { font-size: 12px; } #tip td { padding: 0 10px 0 0; border: 0; }
#tip td + td { text-align: right; padding: 0; white-space: nowrap; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); gap: 0 32px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 600; color: var(--soft); font-size: 12px; }
.number { text-align: right; white-space: nowrap; padding-right: 0; padding-left: 12px; overflow-wrap: normal; }
.exact { color: var(--soft); } tr.sum td { font-weight: 600; } tr.over td { color: var(--limit); }
@media (max-width: 480px) { body { padding: 10px; } #bytes .exact { display: none; } }
)css";

}  // namespace hydrofoil::plan::detail
