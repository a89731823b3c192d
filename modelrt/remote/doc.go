// Package remote asks a model at an endpoint that speaks OpenAI's interface for chats: vLLM, SGLang, KServe, Ray Serve, llama.cpp, another
// chatxray. It knows the wire, its time-outs and its failures; what is asked and what becomes of the answer is modelrt's.
//
// What leaves is what Request holds, the key, and nothing else: no header of an image, no UID, no name. Redirects are not followed, so that none
// of it goes anywhere else.
package remote
