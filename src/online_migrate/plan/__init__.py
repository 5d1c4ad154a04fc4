"""What the user asked for: the plan's text, model and expansion.  Never touches a database.

``load`` reads a plan: ``yaml_file`` gives each value its line, ``document`` defines the keys, ``mistakes``
reports what is wrong, ``references`` checks ``<master.id>`` and the like, ``sql_file`` reads the files that
steps name. ``model`` is the result, ``expand`` makes steps of it, ``json_schema`` describes the keys for
editors.
"""
