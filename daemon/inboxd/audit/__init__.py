"""The database derived anew from the archived files, record by record, and compared.

A second reading of the contract, short and slow: it shares nothing with the loader but the nouns, so that a fault must
be made twice to go unseen. ``tests/house/test_floors.py`` holds what it may import.
"""
