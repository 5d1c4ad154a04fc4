"""What the user asked for: the plan's text, model and expansion.  Never touches a database.

``load`` reads a plan: ``yaml_file`` gives each value its line, ``document`` says which keys there are, ``mistakes`` tells what is
wrong, ``references`` checks ``<master.id>`` and its kin, ``sql_file`` reads the files that steps name.  ``model`` is what comes out,
``expand`` makes steps of it, ``json_schema`` tells editors the keys.
"""
