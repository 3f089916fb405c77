"""Streamlit pages over queries: the worklist that radiologists read from."""
