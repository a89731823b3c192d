// Package chat renders chat templates: the Jinja that models ship in their tokenizer_config.json. It is a Jinja of our own, of what
// such templates use, because the libraries that there are cannot be stopped: a template is input from outside, and here every step
// and every byte that it makes is counted. There are no files, no includes, no imports, no Python objects.
package chat
