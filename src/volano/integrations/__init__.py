"""The Tasks from what people have written for other libraries, which are imported when used."""
