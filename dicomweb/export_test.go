package dicomweb

// SetChatBytes changes what the bodies of all conversations under way may have, before a service starts.
func SetChatBytes(n int64) (restore func()) {
	was := maxChatBytes
	maxChatBytes = n
	return func() { maxChatBytes = was }
}

// MaxChats is how many conversations are under way at most.
const MaxChats = maxChats
