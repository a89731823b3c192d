// Package pipeline is the product in plain Go: the nouns that flow from a stored study to a delivered report
// (Instance, Image, Study, Reading, Document), the small interfaces between the rooms, and the line itself.
// It imports no other package of this module; every other package may import it.
package pipeline
