"""Metrics that break a careless reader: NaN, Infinity, 1e999, huge ints, deep nesting, wrong types, out of range, duplicates, BOM, latin-1."""

import json

V = {
    "nan": '{"acc": NaN}',
    "inf": '{"acc": Infinity}',
    "1e999": '{"acc": 1e999}',
    "neg": '{"acc": -0.5}',
    "big": '{"acc": 1.7}',
    "pct": '{"acc": 97.2}',
    "str": '{"acc": "0.99"}',
    "bool": '{"acc": true}',
    "null": '{"acc": null}',
    "list": "[0.99]",
    "missing": "{}",
    "dup": '{"acc": 0.1, "acc": 0.99}',
    "deep": "[" * 100000 + "]" * 100000,
    "deepobj": '{"a":' * 5000 + "1" + "}" * 5000,
    "hugeint": '{"acc": ' + "9" * 5000 + "}",
    "trunc": '{"acc": 0.9',
    "empty": "",
    "two": '{"acc":0.9}{"acc":0.8}',
    "longstr": json.dumps({"acc": 0.9, "note": "A" * 100000}),
    "many": json.dumps({"acc": 0.9, **{str(i): i for i in range(50000)}}),
    "inject": json.dumps({"acc": 0.5, "note": "x"}).replace("0.5", '{"__class__": "os.system"}'),
}
for k, v in V.items():
    open(f"metrics_{k}.json", "w").write(v)
open("metrics_latin1.json", "wb").write('{"acc": 0.9, "n": "é"}'.encode("latin-1"))
open("metrics_nul.json", "wb").write(b'{"acc": 0.9}\0\0\0')
print("ATTACK", json.dumps({"attack": "metrics_bad", "breach": None, "detail": len(V) + 2}))
