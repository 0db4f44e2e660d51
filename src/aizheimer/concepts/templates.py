"""The words of the default world: prompt templates, common nouns, styles and general prompts.

The nouns are the candidates for a concept's neighbours. They cover what photographs are usually
of, in groups of close neighbours, and hold no person's name but those of well-known characters.
"""

from __future__ import annotations

OBJECT_TEMPLATES = (
    "a photo of {concept}",
    "{concept}",
    "a picture of {concept}",
    "an image of {concept}",
    "a painting of {concept}",
    "a close-up photo of {concept}",
    "a photo of {concept} outdoors",
    "a portrait of {concept}",
)

STYLE_TEMPLATES = (
    "a painting of {subject} in the style of {concept}",
    "{subject} in {concept} style",
    "a picture of {subject} by {concept}",
)

SUBJECTS = (
    *("a house", "a tree", "a cat", "a dog", "a horse", "a bird", "a woman", "a man", "a child", "a city street"),
    *("a mountain", "a river", "a boat on the sea", "a bowl of fruit", "a vase of flowers", "a garden", "a bridge"),
    *("a castle", "a forest path", "a night sky", "a harbour", "a field of wheat", "a table and a chair", "a church"),
)

STYLES = (
    *("van gogh", "monet", "picasso", "rembrandt", "hokusai", "cezanne", "gauguin", "klimt", "munch", "vermeer"),
    *("watercolor", "oil painting", "pencil sketch", "pixel art", "comic book", "anime", "impressionism", "cubism"),
    *("pop art", "art nouveau", "ukiyo-e", "stained glass", "low poly", "charcoal drawing"),
)

GENERAL_PROMPTS = (
    *("a photo", "a picture", "a painting", "a drawing", "a photo of a street in the morning"),
    *("a landscape with hills and clouds", "a room with a window", "people walking in a park"),
    *("a still life on a wooden table", "a photo of the sea at sunset", "a busy market", "an empty road"),
    *("a close-up of a texture", "a view from above", "a quiet village in winter", "colourful abstract shapes"),
)

NOUNS: dict[str, tuple[str, ...]] = {
    "people": (
        *("man", "woman", "boy", "girl", "baby", "old man", "old woman", "teenager", "bride", "groom", "king", "queen"),
        *("doctor", "nurse", "teacher", "student", "police officer", "firefighter", "soldier", "pilot", "astronaut"),
        *("cook", "waiter", "farmer", "fisherman", "carpenter", "mechanic", "scientist", "painter", "musician"),
        *("singer", "dancer", "actor", "athlete", "football player", "tennis player", "boxer", "swimmer", "judge"),
        *("businessman", "businesswoman", "politician", "priest", "monk", "nun", "clown", "magician", "knight"),
        *("pirate", "cowboy", "witch", "wizard", "santa claus", "mrs. claus", "elf", "fairy", "mermaid", "vampire"),
        *("superhero", "robot"),
    ),
    "animals": (
        *("cat", "kitten", "dog", "puppy", "wolf", "fox", "bear", "polar bear", "panda", "lion", "tiger", "leopard"),
        *("horse", "zebra", "donkey", "cow", "pig", "sheep", "goat", "deer", "reindeer", "camel", "giraffe"),
        *("elephant", "rhinoceros", "hippopotamus", "monkey", "gorilla", "kangaroo", "koala", "rabbit", "squirrel"),
        *("mouse", "hedgehog", "bat", "bird", "eagle", "owl", "parrot", "penguin", "duck", "swan", "chicken"),
        *("rooster", "peacock", "flamingo", "snake", "lizard", "crocodile", "turtle", "frog", "fish", "shark"),
        *("whale", "dolphin", "octopus", "crab", "jellyfish", "butterfly", "bee", "spider", "ant", "snail"),
        *("dinosaur", "dragon", "unicorn"),
    ),
    "plants": (
        *("tree", "pine tree", "palm tree", "christmas tree", "cactus", "flower", "rose", "tulip", "sunflower"),
        *("mushroom", "leaf", "grass", "bamboo"),
    ),
    "food": (
        *("apple", "red apple", "banana", "orange", "lemon", "grapes", "strawberry", "cherry", "pear", "peach"),
        *("pineapple", "watermelon", "tomato", "potato", "carrot", "corn", "onion", "pumpkin", "bread", "cheese"),
        *("egg", "pizza", "hamburger", "hot dog", "sandwich", "pasta", "sushi", "soup", "salad", "cake", "pie"),
        *("cookie", "donut", "chocolate", "ice cream", "cup of coffee", "cup of tea", "glass of wine"),
        *("bottle of beer", "glass of water"),
    ),
    "objects": (
        *("chair", "table", "sofa", "bed", "lamp", "candle", "clock", "mirror", "book", "newspaper", "pen", "phone"),
        *("laptop", "television", "camera", "guitar", "violin", "piano", "drum", "trumpet", "ball", "football"),
        *("tennis racket", "golf ball", "skateboard", "kite", "balloon", "teddy bear", "doll", "toy", "gift box"),
        *("umbrella", "hat", "santa hat", "cap", "helmet", "crown", "glasses", "watch", "ring", "necklace", "shoe"),
        *("boot", "dress", "suit", "shirt", "coat", "glove", "bag", "backpack", "suitcase", "key", "knife", "fork"),
        *("spoon", "plate", "cup", "bottle", "vase", "basket", "box", "hammer", "scissors", "sword", "gun", "flag"),
        *("bell", "snowman", "statue", "parachute", "chainsaw", "gas pump", "cassette player", "french horn"),
    ),
    "vehicles": (
        *("car", "sports car", "taxi", "bus", "truck", "garbage truck", "fire truck", "ambulance", "tractor"),
        *("motorcycle", "bicycle", "train", "tram", "airplane", "helicopter", "rocket", "hot air balloon", "boat"),
        *("sailing ship", "submarine", "sleigh"),
    ),
    "places": (
        *("house", "cottage", "skyscraper", "castle", "church", "mosque", "temple", "tower", "lighthouse", "bridge"),
        *("windmill", "factory", "school", "hospital", "restaurant", "kitchen", "bedroom", "library", "museum"),
        *("stadium", "airport", "city", "village", "street", "park", "garden", "forest", "jungle", "desert"),
        *("mountain", "volcano", "waterfall", "river", "lake", "beach", "island", "ocean", "cave", "field", "sky"),
        *("moon", "sun", "night sky", "rainbow", "snow", "fire"),
    ),
}
