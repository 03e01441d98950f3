# Not the include: statement, which would lose the default target.
workflow.include("workflow/Snakefile", overwrite_default_target=True)
