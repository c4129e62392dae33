"""Staged experiments: commands of this program as stages with files between, planned as a whole and run one by one.

`recipe` reads what was asked, `plan` makes of it a list of stages, each with a key that says what its result depends
on, `check` looks for what would stop one of them, and `runner` runs those that are not finished. `commands` says how
each command serves as a stage.
"""
