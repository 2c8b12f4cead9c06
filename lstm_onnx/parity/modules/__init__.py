"""The verification of a file against any module.

`subject` is what the steps share: the file, the module and what is known of their inputs.  `verification` puts them in
order.
"""
