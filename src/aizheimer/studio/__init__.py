"""The studio: forgetting in a web page. Gradio draws it; jobs, visitors and files know nothing of Gradio."""
