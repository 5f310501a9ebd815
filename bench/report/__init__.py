"""The report of a finished run: one document with its key results, tables, figures, threat models and cautions.

What lives here: which numbers are key results (`key_results`, `summary`), every fixed text (`phrases`), the document as
data (`document`, `content`) and its two forms (`html`, `markdown`). What must not: any measure or test, which are in
the leaderboard and in the tables of significance, nor drawing, which is in `bench.figures`. The same folder and the
same plugins installed give the same bytes.
"""
